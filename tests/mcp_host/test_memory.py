"""What is known of a server from one run to the next, and servers that sleep meanwhile."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import McpServerConfig
from sidecar.mcp_host import server
from tests.support.bridge import bridge
from tests.support.hosts import WatchedHost, faulty, is_alive, plain, running


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """The folder of what is known; it is made when there is something."""
    return tmp_path / "known"


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """As long as this file is there, `held` servers do not begin."""
    return tmp_path / "hold"


Held = Callable[..., McpServerConfig]


@pytest.fixture
def held(hold: Path) -> Held:
    def entry(version: str = "1", **settings: Any) -> McpServerConfig:
        return faulty("Held", env={"HOLD": str(hold), "VERSION": version}, **settings)

    return entry


async def learn(known: Path, config: McpServerConfig) -> None:
    """A first run."""
    async with running(memory_dir=known, s=config) as host:
        await host.state("ready")
        await remembered(known)


async def remembered(known: Path, is_so: Callable[[dict[str, Any]], bool] = bool) -> None:
    """Wait until this is written about the server `s`."""
    async with asyncio.timeout(10):
        while not is_so(written(known)):  # noqa: ASYNC110  # a file is no event
            await asyncio.sleep(0.005)


def written(known: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((known / "s.json").read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    return found


# ---- how it is spoken to --------------------------------------------------------------------


async def test_an_old_server_is_asked_for_its_era_once_and_not_at_every_start(known: Path) -> None:
    await learn(known, faulty("DiesOnProbe"))

    async with running(memory_dir=known, s=faulty("DiesOnProbe")) as host:
        await host.state("ready")

        assert len(host.pids) == 1
        assert host.host.logs("s", 10) == ()


async def test_an_era_that_does_not_fit_any_more_is_found_out_anew(known: Path) -> None:
    await learn(known, faulty("WantsProbe"))

    async with running(memory_dir=known, s=faulty("WantsProbe")) as host:
        await host.state("ready")

        assert host.states() == ["starting", "backoff", "starting", "ready"]


async def test_a_new_version_is_asked_for_its_era_again(known: Path, held: Held) -> None:
    probe = "unknown method server/discover"
    await learn(known, held("1"))
    async with running(memory_dir=known, s=held("2")) as host:
        await host.state("ready")
        assert probe not in host.host.logs("s", 10)
        await remembered(known, lambda now: now["mode"] == "auto")

    async with running(memory_dir=known, s=held("2")) as host:
        await host.state("ready")

        assert probe in host.host.logs("s", 10)


async def test_a_url_that_was_found_to_speak_sse_is_not_asked_for_more(known: Path) -> None:
    async with bridge("sse") as behind:
        config = McpServerConfig(url=behind.url)
        await learn(known, config)
        behind.requests.clear()

        async with running(memory_dir=known, s=config) as host:
            status = await host.state("ready")

    assert status.transport == "sse"
    assert behind.requests[0] == "GET /sse"
    assert "POST /sse" not in behind.requests


# ---- its tools ------------------------------------------------------------------------------


async def test_tools_are_offered_while_their_server_starts_and_a_call_waits(
    known: Path, hold: Path, held: Held
) -> None:
    await learn(known, held())
    hold.touch()

    async with running(memory_dir=known, s=held()) as host:
        await host.until(lambda: len(host.pids) == 1)
        call = asyncio.create_task(host.call("echo", text="hi"))
        assert (host.status().state, host.status().tools) == ("starting", 3)
        assert host.host.starting() == []  # no chat needs to wait

        hold.unlink()

        assert (await call).text == "hi"


async def test_a_tool_that_is_not_what_it_was_known_as_is_not_run(known: Path, held: Held) -> None:
    await learn(known, held("1", start="lazy"))

    async with running(memory_dir=known, s=held("2", start="lazy")) as host:
        await host.state("idle")
        result = await host.call("echo", text="hi")
        again = await host.call("echo", text="hi")

        assert "changed since this turn began" in result.text
        assert again.text == "hi"
        assert host.tool_changes()[-1].changed == ("echo",)


async def test_what_is_denied_since_is_not_offered_from_memory_either(
    known: Path, held: Held
) -> None:
    await learn(known, held())

    async with running(memory_dir=known, s=held(start="lazy", deny=("die",))) as host:
        await host.state("idle")

        assert [tool.server_name for tool in host.host.tools()] == ["echo", "work"]


async def test_a_server_that_is_started_otherwise_is_another(known: Path) -> None:
    await learn(known, plain(start="lazy"))

    async with running(memory_dir=known, s=faulty("Banner", start="lazy")) as host:
        await host.state("ready")

        assert "idle" not in host.states()


async def test_what_nobody_has_agreed_to_is_not_offered_from_memory(known: Path) -> None:
    await learn(known, plain())

    async with running(memory_dir=known, s=plain(start="lazy", approved="another")) as host:
        await host.state("needs_approval")

        assert host.host.tools() == ()


# ---- the file -------------------------------------------------------------------------------


def forged(good: bytes) -> bytes:
    return good.replace(b"echo, for a test", b"echo, for a thief")


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda good: b"",
    lambda good: good[: len(good) // 2],
    lambda good: b"\xff" + good,
    lambda good: b"[" * 100_000,
    lambda good: b'{"fingerprint": 7}',
    forged,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_memory_is_none_and_is_made_anew(
    known: Path, damage: Callable[[bytes], bytes]
) -> None:
    await learn(known, plain(start="lazy"))
    good = (known / "s.json").read_bytes()
    assert damage(good) != good
    (known / "s.json").write_bytes(damage(good))

    async with running(memory_dir=known, s=plain(start="lazy")) as host:
        await host.state("ready")
        assert "idle" not in host.states()
        await remembered(known, lambda now: now == json.loads(good))


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
async def test_what_is_known_is_for_this_person_alone_and_has_no_secret(known: Path) -> None:
    async with bridge("http") as behind:
        url = behind.url.replace("//", "//me:hunter22@") + "?key=sesame77"
        await learn(known, McpServerConfig(url=url, headers={"X-Key": "opensesame"}))

    assert (known / "s.json").stat().st_mode & 0o777 == 0o600
    assert known.stat().st_mode & 0o777 == 0o700
    text = (known / "s.json").read_text()
    for secret in ("hunter22", "sesame77", "opensesame", "127.0.0.1"):
        assert secret not in text


async def test_servers_that_are_gone_from_the_settings_are_forgotten(known: Path) -> None:
    await learn(known, plain())

    async with running(memory_dir=known, t=plain()) as host:
        await host.state("ready", server="t")
        assert not (known / "s.json").exists()

        host.host.reconcile({})
        await host.host.gone("t", 10)

        assert list(known.iterdir()) == []


async def test_a_folder_that_takes_nothing_costs_the_memory_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async with running(memory_dir=tmp_path / "file", s=plain()) as host:
        await host.state("ready")

        assert (await host.call("echo", text="hi")).text == "hi"


# ---- sleeping -------------------------------------------------------------------------------


async def test_a_lazy_server_whose_tools_are_known_sleeps_until_one_is_called(known: Path) -> None:
    await learn(known, plain(start="lazy"))

    async with running(memory_dir=known, s=plain(start="lazy")) as host:
        status = await host.state("idle")
        assert (status.pid, status.era, status.error) == (None, None, None)
        assert status.tools > 5
        assert not host.pids

        result = await host.call("echo", text="hi")

        assert result.text == "hi"
        assert host.states() == ["idle", "starting", "ready"]


async def test_a_lazy_server_is_started_once_to_learn_its_tools(known: Path) -> None:
    async with running(memory_dir=known, s=plain(start="lazy")) as host:
        await host.state("ready")

        assert host.states() == ["starting", "ready"]


async def test_calls_that_come_together_start_one_process(known: Path) -> None:
    await learn(known, plain(start="lazy"))

    async with running(memory_dir=known, s=plain(start="lazy")) as host:
        await host.state("idle")

        results = await asyncio.gather(*(host.call("echo", text=str(i)) for i in range(12)))

        assert [result.text for result in results] == [str(i) for i in range(12)]
        assert len(host.pids) == 1


async def test_a_lazy_server_is_stopped_when_unused_and_started_again_when_called() -> None:
    async with running(s=plain(start="lazy", idle_stop_s=0.3)) as host:
        pid = (await host.state("ready")).pid
        await host.call("echo", text="one")

        status = await host.state("idle")
        assert pid is not None and not is_alive(pid)
        assert (status.tools, status.error) == (len(host.host.tools()), None)
        again = await host.call("echo", text="two")
        await host.state("idle")

        assert again.text == "two"
        assert len(host.pids) == 2
        assert set(host.states()) == {"starting", "ready", "idle"}


async def test_a_server_at_work_is_not_unused() -> None:
    async with running(s=plain(start="lazy", idle_stop_s=0.2)) as host:
        await host.state("ready")

        assert (await host.call("work", steps=4, step_s=0.2)).text == "worked"


async def test_a_server_that_sleeps_can_be_restarted(known: Path) -> None:
    await learn(known, plain(start="lazy"))

    async with running(memory_dir=known, s=plain(start="lazy")) as host:
        await host.state("idle")

        status = await host.host.restart("s")

        assert status.state == "starting"
        await host.state("ready")


async def test_a_server_that_sleeps_holds_up_no_end(known: Path) -> None:
    await learn(known, plain(start="lazy"))

    async with running(memory_dir=known, s=plain(start="lazy")) as host:
        await host.state("idle")
        began = time.monotonic()

    assert time.monotonic() - began < 1
    assert host.status().state == "stopped"


async def test_a_sleeper_that_cannot_start_any_more_says_why(known: Path, tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -m tests.support.servers.plain\n")
    script.chmod(0o755)
    config = plain(start="lazy").model_copy(update={"command": str(script), "args": ()})
    await learn(known, config)
    script.write_text("#!/bin/sh\necho no licence >&2\nexit 4\n")

    async with running(memory_dir=known, s=config) as host:
        await host.state("idle")

        result = await host.call("echo", text="hi")

        assert result.text.startswith("The call was not made.")
        assert "exited with code 4" in result.text and "no licence" in result.text
        assert host.status().state == "failed"


# ---- waiting for the next try ---------------------------------------------------------------


async def crashed(host: WatchedHost) -> None:
    await host.state("ready")
    await host.call("die")
    await host.until(lambda: "SIGKILL" in (host.status().error or ""))


async def test_a_call_does_not_wait_for_the_time_of_the_next_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "BACKOFF_S", (60.0, 60.0))
    async with running(s=plain()) as host:
        await crashed(host)

        result = await host.call("echo", text="now")

        assert result.text == "now"
