"""Keys in a real Secret Service: GNOME Keyring, on a D-Bus of the test's own."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sidecar.credentials import READ_S
from tests.support.fake_openai import FakeOpenAI
from tests.support.processes import PROJECT, environment
from tests.support.secret_service import (
    SecretService,
    State,
    missing_programs,
    secret_service,
)

KEY = "sk-test-0123456789abcdefghijklmnop"
START_S = 10.0  # of a Python that imports everything, on a machine that does other things too

pytestmark = pytest.mark.skipif(missing_programs() is not None, reason=str(missing_programs()))


@pytest.fixture
def keyring() -> Iterator[SecretService]:
    with secret_service() as service:
        yield service


def sidecar(
    home: Path, keyring: SecretService, *arguments: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-m", "sidecar", *arguments),
        cwd=PROJECT,
        env=surroundings(home, keyring.environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=READ_S + START_S,
    )


def surroundings(home: Path, keyring: Mapping[str, str]) -> dict[str, str]:
    """The keyring is the one that is found on the bus, not one that a variable names."""
    own = environment(home, keyring)
    del own["PYTHON_KEYRING_BACKEND"]
    return own


async def test_a_stored_key_is_found_again_and_sent_to_its_vendor_until_it_is_deleted(
    tmp_path: Path, keyring: SecretService
) -> None:
    async with FakeOpenAI() as upstream:
        settings = tmp_path / "settings.yaml"
        settings.write_text(
            "chat: {model: fake/test}\n"
            f"providers: {{fake: {{kind: openai_compatible, base_url: '{upstream.url}'}}}}\n"
        )

        async def run(*command: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
            words = (*command[:2], "--config", str(settings), *command[2:])
            return await asyncio.to_thread(sidecar, tmp_path, keyring, *words, stdin=stdin)

        stored = await run("keys", "set", "fake", stdin=f"{KEY}\n")
        status = await run("keys", "status")
        answer = await run("chat", "Hi")
        deleted = await run("keys", "delete", "fake")
        again = await run("keys", "delete", "fake")

    assert (stored.returncode, stored.stderr) == (0, "")
    assert "fake         keyring\n" in status.stdout
    assert "SecretService" in status.stderr
    assert answer.stdout == "Hello.\n"
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert (deleted.returncode, again.returncode) == (0, 1)
    assert KEY not in "".join(ran.stdout + ran.stderr for ran in (stored, status, deleted))


def test_each_profile_has_keys_of_its_own(tmp_path: Path, keyring: SecretService) -> None:
    sidecar(tmp_path, keyring, "keys", "set", "--profile", "one", "openai", stdin=KEY)

    mine = sidecar(tmp_path, keyring, "keys", "status", "--profile", "one")
    others = sidecar(tmp_path, keyring, "keys", "status")

    assert "openai       keyring\n" in mine.stdout
    assert "openai       no key\n" in others.stdout


@pytest.mark.parametrize(("state", "advice"), [("locked", "Unlock it"), ("missing", "Start one")])
def test_without_a_keyring_that_can_be_opened_nothing_is_stored_and_the_exit_code_is_5(
    tmp_path: Path, state: State, advice: str
) -> None:
    with secret_service(state) as keyring:
        finished = sidecar(tmp_path, keyring, "keys", "set", "openai", stdin=KEY)

    (line,) = finished.stderr.splitlines()
    assert (finished.returncode, finished.stdout) == (5, "")
    assert advice in line
    assert KEY not in line


def test_a_keyring_that_was_locked_keeps_its_key_to_itself_and_says_so(
    tmp_path: Path, keyring: SecretService
) -> None:
    sidecar(tmp_path, keyring, "keys", "set", "openai", stdin=KEY)
    keyring.lock()

    status = sidecar(tmp_path, keyring, "keys", "status")
    stored = sidecar(tmp_path, keyring, "keys", "set", "openai", stdin=KEY)
    deleted = sidecar(tmp_path, keyring, "keys", "delete", "openai")

    assert "openai       no key\n" in status.stdout
    assert "locked" in status.stderr
    assert (stored.returncode, deleted.returncode) == (5, 5)
    assert "Unlock it" in stored.stderr


def test_a_keyring_that_never_answers_is_given_up_after_the_deadline(
    tmp_path: Path, keyring: SecretService
) -> None:
    keyring.freeze()
    began = time.monotonic()

    status = sidecar(tmp_path, keyring, "keys", "status")

    assert time.monotonic() - began < READ_S + START_S
    assert f"did not answer within {READ_S:g} s" in status.stderr
    assert "openai       no key\n" in status.stdout
