"""`sidecar doctor` as a person and a script use it, and `diagnostics` as a frontend does."""

import asyncio
import socket
import sys
import time
from pathlib import Path

import pytest

from sidecar.client import Client
from sidecar.protocol.program import Diagnostics, DiagnosticsResult, Finding
from sidecar.protocol.providers import KeysSet, KeysSetPayload
from tests.behaviour.conftest import PLAIN_SERVER, Join, Start
from tests.support.fake_openai import HANG, Answer, FakeOpenAI, status
from tests.support.processes import PATIENCE_S, run, server, spawned

KEY = "sk-test-0123456789abcdefghijklmnop"
COMMAND_S = 15.0  # what the command promises
DEMO = "chat: {model: demo/scripted}\nproviders: {demo: {kind: demo}}\n"


def configured(home: Path, settings: str) -> tuple[str, str]:
    """The flag for a file with these settings."""
    file = home / "settings.yaml"
    file.write_text(settings)
    return "--config", str(file)


def found(report: DiagnosticsResult, area: str, name: str | None = None) -> Finding:
    [finding] = [item for item in report.items if (item.area, item.name) == (area, name)]
    return finding


async def test_a_frontend_is_told_what_works_and_what_does_not(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    upstream.will_list(status(401, "Incorrect API key provided"))
    client = await join(await start(PLAIN_SERVER))

    report = await client.request(Diagnostics)

    fake = found(report, "provider", "fake")
    assert (report.ok, fake.status, fake.code) == (False, "broken", "key_rejected")
    assert "sidecar keys set fake" in fake.text
    assert found(report, "mcp", "plain").status == "ok"
    assert found(report, "provider", "openai").status == "ok"  # nobody uses it


async def test_the_keys_that_a_check_used_are_not_in_what_it_says(
    client: Client, upstream: FakeOpenAI
) -> None:
    await client.request(KeysSet, KeysSetPayload(provider="fake", key=KEY))
    upstream.will_list(status(400, f"What is {KEY}?"))

    report = await client.request(Diagnostics)

    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert found(report, "provider", "fake").status == "broken"
    assert KEY not in report.model_dump_json()


async def test_the_demo_is_found_well_on_any_machine(tmp_path: Path) -> None:
    finished = await run(tmp_path, "doctor", "--demo")

    lines = finished.stdout.splitlines()
    assert finished.code == 0, finished.stdout
    assert "ok       mcp demo: It runs; tools: 4." in lines
    assert any(line.startswith("warning  keyring: ") for line in lines)
    assert not any(line.startswith("broken") for line in lines)
    assert "nothing broken" in finished.stderr


async def test_a_script_reads_the_same_as_json(tmp_path: Path) -> None:
    finished = await run(tmp_path, "doctor", "--demo", "--json")

    report = DiagnosticsResult.model_validate_json(finished.stdout)
    assert (finished.code, report.ok) == (0, True)
    assert found(report, "keyring").code == "keyring_unavailable"
    assert found(report, "port").status in ("ok", "warning")


async def test_without_a_key_it_says_how_to_set_one_and_ends_with_1(tmp_path: Path) -> None:
    finished = await run(tmp_path, "doctor")

    [openai] = [line for line in finished.stdout.splitlines() if "provider openai" in line]
    assert finished.code == 1
    assert openai.startswith("broken")
    assert "sidecar keys set openai" in openai


async def test_a_mistake_in_the_settings_is_shown_with_what_else_is_there(tmp_path: Path) -> None:
    config = configured(tmp_path, "chta: {model: x}\n")

    finished = await run(tmp_path, "doctor", *config)

    broken = [line for line in finished.stdout.splitlines() if line.startswith("broken")]
    assert finished.code == 1
    assert len(broken) == 1
    assert "settings.yaml, line 1: chta" in broken[0]
    assert "keyring" in finished.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few make links")
async def test_a_settings_file_that_cannot_be_read_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "config" / "sidecar" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.symlink_to(file)

    finished = await run(tmp_path, "doctor", "--json")

    report = DiagnosticsResult.model_validate_json(finished.stdout)
    assert (finished.code, found(report, "settings").status) == (1, "broken")
    assert "cannot be read" in found(report, "settings").text


async def test_a_server_that_cannot_start_is_broken_and_says_what_to_install(
    tmp_path: Path,
) -> None:
    lost = "lost: {command: no-such-program-here}"
    dying = f"dying: {server('faulty', 'ExitsAtOnce')}"
    config = configured(tmp_path, f"{DEMO}mcp: {{servers: {{{lost}, {dying}}}}}\n")

    finished = await run(tmp_path, "doctor", *config)

    broken = [line for line in finished.stdout.splitlines() if line.startswith("broken")]
    assert finished.code == 1
    assert [line.split(":")[0].split()[-1] for line in broken] == [
        "no-such-program-here",
        "lost",
        "dying",
    ]


async def test_the_sidecar_that_runs_is_asked_and_its_port_is_no_fault(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environ = {"SIDECAR_SERVER__PORT": port}
    async with spawned(tmp_path, environ=environ) as sidecar:
        assert sidecar.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            await sidecar.process.stdout.readuntil(b"  token")

        finished = await run(tmp_path, "doctor", "--json", environ=environ)

    report = DiagnosticsResult.model_validate_json(finished.stdout)
    assert f"asking the one at http://127.0.0.1:{port}" in finished.stderr
    assert found(report, "port").status == "ok"
    assert "a sidecar that runs" in found(report, "port").text


async def test_whatever_hangs_the_command_ends_in_time(tmp_path: Path) -> None:
    hanging = f"hanging: {server('faulty', 'Mute')}"
    async with FakeOpenAI() as upstream:
        upstream.will_list(Answer([HANG]))
        config = configured(
            tmp_path,
            "chat: {model: fake/test}\n"
            f"providers: {{fake: {{kind: openai_compatible, base_url: '{upstream.url}'}}}}\n"
            f"mcp: {{servers: {{{hanging}}}}}\n",
        )
        began = time.monotonic()

        finished = await run(tmp_path, "doctor", "--json", *config)

    assert time.monotonic() - began < COMMAND_S
    assert finished.code == 1
    report = DiagnosticsResult.model_validate_json(finished.stdout)
    assert found(report, "provider", "fake").code == "timeout"
    assert found(report, "mcp", "hanging").status == "warning"
