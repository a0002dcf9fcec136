"""What the doctor says of each thing that can be wrong."""

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pytest

from sidecar.app import World, open_credentials
from sidecar.config import Loaded
from sidecar.credentials import Keyring
from sidecar.doctor import BROKEN, Patient, examine, run
from sidecar.errors import ConfigInvalid, SidecarError, StorageCorrupt, StorageError
from sidecar.messages import ErrorInfo
from sidecar.protocol.mcp import McpServerStatus, ServerState
from sidecar.protocol.program import DiagnosticsResult, Finding
from sidecar.protocol.providers import ProvidersTestResult
from sidecar.redaction import redact_value
from tests.support.keyrings import MemoryKeyring
from tests.support.world import running, world

KEY = "sk-test-0123456789abcdefghijklmnop"
DEMO = "providers: {demo: {kind: demo}}\nchat: {model: demo/scripted}\n"
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")


@dataclass
class Practice:
    """A patient to be made ill; all providers answer, and there are no MCP servers."""

    home: Path
    settings: str = DEMO
    keyring: Keyring = field(default_factory=lambda: Keyring("sidecar", MemoryKeyring))
    environ: dict[str, str] = field(default_factory=dict)
    servers: Sequence[McpServerStatus] = ()
    test: Callable[[str], Awaitable[ProvidersTestResult]] | None = None
    settled: asyncio.Event | None = None
    storage: StorageError | None = None
    tested: list[str] = field(default_factory=list)

    @cached_property
    def world(self) -> World:
        return world(self.home, self.settings, environ=self.environ)

    async def examined(self, limit_s: float = 5.0) -> DiagnosticsResult:
        place = self.world
        sections = place.settings.config.providers

        async def test(name: str) -> ProvidersTestResult:
            self.tested.append(name)
            return await self.test(name) if self.test else answers(name)

        async def count() -> int:
            if self.storage is not None:
                raise self.storage
            return 3

        async def settle() -> None:
            if self.settled is not None:
                await self.settled.wait()

        patient = Patient(
            settings=place.settings,
            folders=place.folders,
            keyring=self.keyring,
            credentials=open_credentials(sections, self.keyring, self.environ, redact_value),
            test_provider=test,
            count_conversations=count,
            servers_settled=settle,
            servers=lambda: self.servers,
        )
        async with asyncio.timeout(10):
            return await examine(patient, limit_s)


@pytest.fixture
def practice(tmp_path: Path) -> Practice:
    return Practice(tmp_path)


def answers(name: str) -> ProvidersTestResult:
    return ProvidersTestResult(provider=name, ok=True, models=3, duration_ms=1)


def fails(name: str, code: str, text: str = "It fails.") -> ProvidersTestResult:
    info = ErrorInfo(code=code, retryable=False, origin="provider")
    return ProvidersTestResult(provider=name, ok=False, duration_ms=1, error=text, error_info=info)


def server(state: ServerState, error: str | None = None) -> McpServerStatus:
    return McpServerStatus(
        server="files",
        transport="stdio",
        state=state,
        era=None,
        fingerprint="f",
        error=error,
        tools=4,
        since="2026-01-01T00:00:00.000+00:00",
    )


def found(report: DiagnosticsResult, area: str, name: str | None = None) -> Finding:
    [finding] = [item for item in report.items if (item.area, item.name) == (area, name)]
    return finding


async def test_of_a_sidecar_that_is_well_everything_is_ok(practice: Practice) -> None:
    practice.servers = [server("ready")]

    report = await practice.examined()

    assert report.ok
    assert {item.status for item in report.items} == {"ok"}
    assert found(report, "mcp", "files").text == "It runs; tools: 4."
    assert "MemoryKeyring" in found(report, "keyring").text


# ---- providers ------------------------------------------------------------------------------


async def test_only_providers_with_a_key_or_on_this_machine_are_asked(practice: Practice) -> None:
    practice.environ = {"GEMINI_API_KEY": KEY}

    report = await practice.examined()

    assert sorted(practice.tested) == ["demo", "gemini", "lmstudio", "ollama"]
    assert "environment" in found(report, "provider", "gemini").text
    assert "not asked" in found(report, "provider", "openai").text
    assert KEY not in report.model_dump_json()


async def test_a_local_server_that_is_off_is_no_fault(practice: Practice) -> None:
    async def test(name: str) -> ProvidersTestResult:
        return answers(name) if name == "demo" else fails(name, "local_server_down")

    practice.test = test

    report = await practice.examined()

    assert report.ok
    assert found(report, "provider", "ollama").status == "ok"
    assert found(report, "provider", "ollama").code == "local_server_down"


async def test_the_provider_of_the_default_model_is_needed_and_the_others_can_wait(
    practice: Practice,
) -> None:
    practice.settings = "chat: {model: openai/gpt-4o-mini}"
    practice.environ = {"OPENAI_API_KEY": KEY, "GEMINI_API_KEY": KEY}

    async def test(name: str) -> ProvidersTestResult:
        return fails(name, "key_rejected", f"{name} refused the key {KEY}. Set another.")

    practice.test = test

    report = await practice.examined()

    openai, gemini = found(report, "provider", "openai"), found(report, "provider", "gemini")
    assert (openai.status, gemini.status) == ("broken", "warning")
    assert (openai.code, report.ok) == ("key_rejected", False)
    assert "Set another." in openai.text
    assert KEY not in report.model_dump_json()


async def test_a_default_model_whose_provider_was_taken_out_is_found(practice: Practice) -> None:
    practice.settings = "providers: {openai: null}"

    report = await practice.examined()

    assert found(report, "provider", "openai").status == "broken"
    assert "chat.model" in found(report, "provider", "openai").text


async def test_providers_are_asked_together_and_one_that_hangs_is_given_up(
    practice: Practice,
) -> None:
    practice.environ = {"GEMINI_API_KEY": KEY}
    everybody = asyncio.Barrier(3)  # demo, lmstudio and ollama wait for each other

    async def test(name: str) -> ProvidersTestResult:
        if name == "gemini":
            await asyncio.Event().wait()
        await everybody.wait()
        return answers(name)

    practice.test = test

    report = await practice.examined(limit_s=1.0)

    assert found(report, "provider", "gemini").code == "timeout"
    assert found(report, "provider", "demo").status == "ok"


async def test_a_key_for_another_address_is_told(practice: Practice) -> None:
    practice.settings = f"{DEMO}".replace(
        "{demo:", "{openai: {kind: openai, base_url: 'https://proxy.example/v1'}, demo:"
    )
    practice.environ = {"OPENAI_API_KEY": KEY}

    openai = found(await practice.examined(), "provider", "openai")

    assert openai.status == "warning"
    assert "sidecar keys set openai" in openai.text


# ---- the keyring ----------------------------------------------------------------------------


class SilentKeyring(MemoryKeyring):
    """Waits for a prompt that nobody sees."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.answered.wait()
        return None


@pytest.fixture
def silent() -> Iterator[Keyring]:
    backend = SilentKeyring()
    yield Keyring("sidecar", lambda: backend, read_s=0.2)
    backend.answered.set()


async def test_a_keyring_that_hangs_is_a_warning_while_no_key_of_it_is_needed(
    practice: Practice, silent: Keyring
) -> None:
    practice.keyring = silent

    report = await practice.examined()

    keyring = found(report, "keyring")
    assert (keyring.status, keyring.code) == ("warning", "keyring_unavailable")
    assert "Unlock it" in keyring.text
    assert report.ok
    assert [item.name for item in report.items if "Unlock" in item.text] == [None]  # told once


async def test_a_keyring_that_hangs_is_broken_when_the_default_models_key_may_be_in_it(
    practice: Practice, silent: Keyring
) -> None:
    practice.settings = ""
    practice.keyring = silent

    report = await practice.examined()

    assert found(report, "keyring").status == "broken"


async def test_a_keyring_that_is_slow_for_every_key_is_given_up(practice: Practice) -> None:
    class SlowKeyring(MemoryKeyring):
        def get_password(self, service: str, username: str) -> str | None:
            time.sleep(0.1)
            return None

    practice.keyring = Keyring("sidecar", SlowKeyring)

    report = await practice.examined(limit_s=0.3)

    assert found(report, "keyring").code == "keyring_unavailable"
    assert not report.ok
    assert practice.tested == []


# ---- MCP servers and their commands ---------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("ready", "ok"),
        ("disabled", "ok"),
        ("degraded", "warning"),
        ("failed", "broken"),
        ("backoff", "broken"),
        ("needs_auth", "broken"),
    ],
)
async def test_a_server_is_as_well_as_its_state(
    practice: Practice, state: ServerState, status: str
) -> None:
    practice.servers = [server(state)]

    assert found(await practice.examined(), "mcp", "files").status == status


async def test_a_server_that_cannot_start_says_why_without_the_secrets_of_its_address(
    practice: Practice,
) -> None:
    practice.servers = [server("failed", "No answer at http://me:pass@h/mcp?token=abcdef. Fix.")]

    text = found(await practice.examined(), "mcp", "files").text

    assert text.endswith("Fix.")
    assert "pass@" not in text
    assert "abcdef" not in text


async def test_a_server_that_is_still_starting_is_not_waited_for_without_end(
    practice: Practice,
) -> None:
    practice.servers, practice.settled = [server("starting")], asyncio.Event()

    starting = found(await practice.examined(limit_s=0.2), "mcp", "files")

    assert starting.status == "warning"
    assert "sidecar mcp logs files" in starting.text


async def test_a_command_that_is_missing_is_named_with_what_to_install(
    practice: Practice, tmp_path: Path
) -> None:
    entry = json.dumps({"command": "npx", "args": ["x"], "env": {"PATH": str(tmp_path)}})
    practice.settings = f"{DEMO}mcp: {{servers: {{files: {entry}}}}}"

    report = await practice.examined()

    assert found(report, "command", "npx").status == "broken"
    assert "Install Node.js" in found(report, "command", "npx").text
    assert found(report, "command", "node").status == "broken"  # npx is a script of it
    assert found(report, "command", "PATH").text == os.environ["PATH"]


# ---- the place ------------------------------------------------------------------------------


async def test_notes_of_the_settings_are_warnings(practice: Practice) -> None:
    practice.settings = f"openai: {{api_key: {KEY}}}\n{DEMO}"

    report = await practice.examined()

    assert [item.status for item in report.items if item.area == "settings"][1:] == ["warning"] * 2
    assert KEY not in report.model_dump_json()


@posix
async def test_a_folder_that_others_may_read_is_a_warning(practice: Practice) -> None:
    practice.world.folders.data.chmod(0o755)

    data = found(await practice.examined(), "folder", "data")

    assert data.status == "warning"
    assert "chmod 700" in data.text


async def test_a_file_where_a_folder_should_be_is_broken(practice: Practice) -> None:
    log = practice.world.folders.log
    log.rmdir()
    log.write_text("")

    report = await practice.examined()

    assert (report.ok, found(report, "folder", "log").status) == (False, "broken")
    assert "Move it away" in found(report, "folder", "log").text


async def test_a_folder_in_place_of_the_log_file_is_broken(practice: Practice) -> None:
    (practice.world.folders.log / "sidecar.log").mkdir()

    assert found(await practice.examined(), "log").status == "broken"


# ---- the command ----------------------------------------------------------------------------


class Command:
    """`sidecar doctor` in this place; the sidecar that it asks finds only itself."""

    def __init__(self, place: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.place = place
        self.has_asked = False
        self._capsys = capsys

    async def run(
        self,
        settings: Loaded | None = None,
        refusal: SidecarError | None = None,
        start: SidecarError | None = None,
    ) -> tuple[int, DiagnosticsResult]:
        def load() -> Loaded:
            if refusal is not None:
                raise refusal
            return settings or self.place.settings

        async def ask() -> DiagnosticsResult:
            self.has_asked = True
            if start is not None:
                raise start
            item = Finding(status="ok", area="program", text="It runs.")
            return DiagnosticsResult(ok=True, items=(item,))

        self._capsys.readouterr()  # what came before
        code = await run(self.place.folders, self.place.keyring, load, ask, as_json=True)
        return code, DiagnosticsResult.model_validate_json(self._capsys.readouterr().out)

    async def run_at(
        self, port: int, source: str = "flag", host: str = "127.0.0.1"
    ) -> tuple[int, Finding]:
        """With this port in the settings."""
        settings = self.place.settings
        config, server = settings.config, settings.config.server
        server = server.model_copy(update={"port": port, "host": host})
        settings = replace(
            settings,
            config=config.model_copy(update={"server": server}),
            sources={**settings.sources, "server.port": source},
        )
        code, report = await self.run(settings)
        return code, found(report, "port")


@pytest.fixture
def command(practice: Practice, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(practice.world, capsys)


async def test_the_command_adds_the_port_to_what_the_sidecar_says(command: Command) -> None:
    code, report = await command.run()

    assert (code, report.ok) == (0, True)
    assert [item.area for item in report.items] == ["program", "port"]


async def test_with_invalid_settings_the_place_is_looked_at_and_no_sidecar_started(
    command: Command,
) -> None:
    code, report = await command.run(refusal=ConfigInvalid("config.yaml:3: chta; mean chat?"))

    assert (code, command.has_asked) == (BROKEN, False)
    assert found(report, "settings").text == "config.yaml:3: chta; mean chat?"
    assert found(report, "settings").code == "config_invalid"
    assert found(report, "keyring").status == "ok"
    assert found(report, "folder", "data").status == "ok"


async def test_with_an_unusable_folder_no_sidecar_is_started(command: Command) -> None:
    data = command.place.folders.data
    data.rmdir()
    data.write_text("")

    code, report = await command.run()

    assert (code, command.has_asked) == (BROKEN, False)
    assert found(report, "folder", "data").status == "broken"


async def test_a_folder_that_is_not_there_yet_is_no_fault(command: Command) -> None:
    command.place.folders.data.rmdir()

    _, report = await command.run(refusal=ConfigInvalid("Correct it."))

    assert found(report, "folder", "data").status == "ok"


async def test_what_keeps_the_sidecar_from_starting_is_told(command: Command) -> None:
    code, report = await command.run(start=ConfigInvalid("server.tls.cert cannot be read."))

    assert code == BROKEN
    broken = [item.text for item in report.items if item.status == "broken"]
    assert broken == ["server.tls.cert cannot be read."]


async def test_a_free_port_is_ok(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    code, finding = await command.run_at(port)

    assert (code, finding.status) == (0, "ok")


async def test_a_port_of_another_program_is_broken_only_where_it_was_chosen(
    command: Command,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # accepts, and says nothing
        port = taken.getsockname()[1]

        chosen = await command.run_at(port)
        default = await command.run_at(port, source="default")

    assert (chosen[0], chosen[1].status) == (BROKEN, "broken")
    assert "choose another" in chosen[1].text
    assert (default[0], default[1].status) == (0, "warning")


async def test_a_port_of_a_sidecar_is_no_fault(command: Command, tmp_path: Path) -> None:
    async with running(world(tmp_path / "another")) as app:
        code, finding = await command.run_at(app.address[1])

    assert (code, finding.status) == (0, "ok")
    assert "a sidecar" in finding.text


async def test_an_address_that_this_machine_has_not_is_broken(command: Command) -> None:
    code, finding = await command.run_at(8000, host="192.0.2.1")

    assert (code, finding.status) == (BROKEN, "broken")


async def test_conversations_that_cannot_be_read_are_broken_and_it_says_what_to_do(
    practice: Practice,
) -> None:
    well = await practice.examined()
    practice.storage = StorageCorrupt("They are damaged. Move them away.")

    ill = await practice.examined()

    [kept] = [item for item in well.items if item.area == "conversations"]
    [broken] = [item for item in ill.items if item.area == "conversations"]
    assert (kept.status, kept.text) == ("ok", "3 are kept.")
    assert (broken.status, broken.code) == ("broken", "storage_corrupt")
    assert "Move them away." in broken.text
