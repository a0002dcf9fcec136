import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from keyring.backends import chainer, fail, null
from keyring.errors import KeyringLocked

from sidecar.credentials import Backend, Credentials, Keyring, Vendor, service_name
from sidecar.errors import BadRequest, KeyringUnavailable, NotFound

OPENAI = Vendor("openai", "openai")
PROXIED = Vendor("openai", "openai", "https://gateway.example/v1")
WRITTEN_OUT = Vendor("openai", "openai", "https://api.openai.com/v1")
LOCAL = Vendor("ollama", "openai_compatible", "http://localhost:11434/v1")
GROQ = Vendor("groq", "openai_compatible", "https://api.groq.com/openai/v1")


class Safe:
    """A keyring that works."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], str] = {}
        self.calls: list[str] = []

    def get_password(self, service: str, username: str) -> str | None:
        self.calls.append("get")
        return self.secrets.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.calls.append("set")
        self.secrets[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self.calls.append("delete")
        del self.secrets[service, username]


class Hanging(Safe):
    """A keyring that waits for a prompt which nobody answers."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.answered.wait(10)
        return super().get_password(service, username)


class Slow(Safe):
    def get_password(self, service: str, username: str) -> str | None:
        time.sleep(0.6)
        return super().get_password(service, username)


class Failing(Safe):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def get_password(self, service: str, username: str) -> str | None:
        self.calls.append("get")
        raise self.error

    def set_password(self, service: str, username: str, password: str) -> None:
        raise OSError(f"cannot store {password}")


class Forgetful(Safe):
    def set_password(self, service: str, username: str, password: str) -> None:
        pass


class PlaintextKeyring(Safe):
    pass


def backend(kind: Any) -> Backend:
    """One of the keyring library's own, which have no types."""
    made: Backend = kind()
    return made


def keys(
    *vendors: Vendor, ring: Backend | None = None, environ: dict[str, str] | None = None, **s: Any
) -> Credentials:
    opened = ring or Safe()
    keyring = Keyring("sidecar", lambda: opened, **{"read_s": 0.2, "write_s": 5.0, **s})
    return Credentials(vendors or (OPENAI,), keyring, environ or {})


def test_each_profile_has_a_service_of_its_own() -> None:
    assert (service_name(None), service_name("acme")) == ("sidecar", "sidecar:acme")


async def test_a_key_is_looked_for_in_the_documented_order() -> None:
    in_settings = Vendor("openai", "openai", None, "from-settings")
    environ = {"OPENAI_API_KEY": "from-environment"}
    ring = Safe()
    full = keys(in_settings, ring=ring, environ=environ)
    without_settings = keys(ring=ring, environ=environ)
    only_environment = keys(environ=environ)

    await full.set("openai", "from-keyring", persist=True)
    found = [await one.get("openai") for one in (full, without_settings, only_environment, keys())]
    await full.set("openai", "from-session", persist=False)
    session = await full.get("openai")

    assert session and (session.value, session.source) == ("from-session", "session")
    assert [key and (key.value, key.source) for key in found] == [
        ("from-settings", "config"),
        ("from-keyring", "keyring"),
        ("from-environment", "environment"),
        None,
    ]


async def test_set_tells_where_the_key_is_and_what_hides_it() -> None:
    credentials = keys(Vendor("openai", "openai", None, "from-settings"))

    in_keyring = await credentials.set("openai", "k-123456", persist=True)
    for_now = await credentials.set("openai", "k-234567", persist=False)
    again = await credentials.set("openai", "k-345678", persist=True)

    assert (in_keyring.source, in_keyring.shadowed_by) == ("keyring", "config")
    assert (for_now.source, for_now.shadowed_by) == ("session", None)
    assert (again.source, again.shadowed_by) == ("keyring", "session")


async def test_a_stored_key_is_there_for_the_next_run() -> None:
    ring = Safe()
    await keys(GROQ, ring=ring).set("groq", " gsk_123\n", persist=True)

    key = await keys(GROQ, ring=ring).get("groq")

    assert key is not None and key.value == "gsk_123"


async def test_a_stored_key_does_not_follow_a_changed_address() -> None:
    ring = Safe()
    await keys(GROQ, ring=ring).set("groq", "gsk_123", persist=True)
    moved = keys(Vendor("groq", GROQ.kind, "https://elsewhere.example/openai/v1"), ring=ring)

    key, (status,) = await moved.get("groq"), await moved.status()

    assert key is None and status.source is None
    assert status.reason is not None and "elsewhere.example" in status.reason
    assert "sidecar keys set groq" in status.reason


async def test_an_address_may_be_spelt_in_another_way() -> None:
    ring = Safe()
    await keys(GROQ, ring=ring).set("groq", "gsk_123", persist=True)

    same = keys(Vendor("groq", GROQ.kind, "https://API.groq.com:443/openai/v1/"), ring=ring)

    assert await same.get("groq") is not None


async def test_a_key_stored_for_another_address_does_not_go_to_the_vendors_own() -> None:
    ring = Safe()
    await keys(PROXIED, ring=ring).set("openai", "sk-1", persist=True)

    credentials = keys(OPENAI, ring=ring)

    (status,) = await credentials.status()
    assert await credentials.get("openai") is None
    assert status.reason is not None and "stored for https://gateway.example/v1" in status.reason


@pytest.mark.parametrize(("before", "after"), [(OPENAI, WRITTEN_OUT), (WRITTEN_OUT, OPENAI)])
async def test_the_vendors_own_address_is_the_same_written_out_or_not(
    before: Vendor, after: Vendor
) -> None:
    ring = Safe()
    await keys(before, ring=ring).set("openai", "sk-1", persist=True)

    assert await keys(after, ring=ring).get("openai") is not None


async def test_a_key_of_another_program_goes_to_the_vendors_own_address_only() -> None:
    ring = Safe()
    ring.secrets["sidecar", "openai"] = ring.secrets["sidecar", "groq"] = "bare-key"
    credentials = keys(OPENAI, GROQ, ring=ring)

    openai, groq = await credentials.get("openai"), await credentials.get("groq")

    assert openai is not None and openai.value == "bare-key"
    assert groq is None


@pytest.mark.parametrize(
    "address",
    [
        "https://gateway.example/v1",
        "http://api.openai.com/v1",
        "https://api.openai.com.evil.example",
    ],
)
async def test_a_variable_goes_to_the_vendors_own_address_only(address: str) -> None:
    credentials = keys(Vendor("openai", "openai", address), environ={"OPENAI_API_KEY": "sk-1"})

    key, (status,) = await credentials.get("openai"), await credentials.status()

    assert key is None
    assert status.reason is not None and "OPENAI_API_KEY is set" in status.reason


@pytest.mark.parametrize(
    ("vendor", "variable"),
    [
        (OPENAI, "OPENAI_API_KEY"),
        (Vendor("work", "openai", "https://api.openai.com/v1"), "OPENAI_API_KEY"),
        (Vendor("anthropic", "anthropic"), "ANTHROPIC_API_KEY"),
        (Vendor("gemini", "gemini"), "GEMINI_API_KEY"),
        (
            Vendor("openai", "openai_compatible", "https://api.openai.com/v1"),
            "OPENAI_API_KEY",
        ),
    ],
)
async def test_each_vendor_has_its_usual_variable(vendor: Vendor, variable: str) -> None:
    key = await keys(vendor, environ={variable: " k-1\n"}).get(vendor.name)

    assert key is not None and key.value == "k-1"


@pytest.mark.parametrize(
    "open_backend",
    [null.Keyring, fail.Keyring, PlaintextKeyring],
    ids=["null", "fail", "plaintext"],
)
async def test_a_back_end_that_keeps_no_secret_counts_as_none(
    open_backend: Callable[[], Backend],
) -> None:
    credentials = keys(ring=open_backend())

    with pytest.raises(KeyringUnavailable, match="no keyring that keeps secrets"):
        await credentials.set("openai", "sk-1", persist=True)
    (status,) = await credentials.status()

    assert (status.source, status.backend) == (None, None)
    assert status.reason is not None and "no keyring" in status.reason


async def test_a_chain_of_back_ends_is_as_good_as_the_first_that_keeps_secrets() -> None:
    safe = Safe()

    class Chain(chainer.ChainerBackend):
        backends = (PlaintextKeyring(), safe)

    class Empty(chainer.ChainerBackend):
        backends = (backend(null.Keyring),)

    await keys(ring=backend(Chain)).set("openai", "sk-1", persist=True)

    assert len(safe.secrets) == 1
    with pytest.raises(KeyringUnavailable):
        await keys(ring=backend(Empty)).set("openai", "sk-1", persist=True)


async def test_without_a_keyring_the_variable_still_serves_and_the_status_says_why() -> None:
    credentials = keys(ring=backend(fail.Keyring), environ={"OPENAI_API_KEY": "sk-1"})

    key, (status,) = await credentials.get("openai"), await credentials.status()

    assert key is not None and status.source == "environment"
    assert status.reason is not None and "no keyring" in status.reason


async def test_a_keyring_that_hangs_costs_its_deadline_once() -> None:
    ring = Hanging()
    credentials = keys(OPENAI, GROQ, ring=ring, environ={"OPENAI_API_KEY": "sk-1"})

    async with asyncio.timeout(5):
        for _ in range(100):
            key = await credentials.get("openai")
        _, groq = await credentials.status()

    ring.answered.set()
    assert key is not None and key.source == "environment"
    assert groq.reason is not None and "did not answer" in groq.reason


async def test_the_status_of_many_keys_takes_no_longer_than_one_deadline() -> None:
    ring = Slow()
    vendors = [Vendor(f"vendor{n}", "openai") for n in range(20)]
    for vendor in vendors:
        ring.secrets["sidecar", vendor.name] = "k-1"
    credentials = keys(*vendors, ring=ring, read_s=1.0)

    async with asyncio.timeout(5):
        first = await credentials.status()
    async with asyncio.timeout(5):
        second = await credentials.status()

    assert [status.source for status in first] == ["keyring", *[None] * 19]
    assert first[1].reason is not None and "slow" in first[1].reason
    assert [status.source for status in second[:3]] == ["keyring", "keyring", None]


async def test_a_server_on_this_machine_waits_only_once_for_a_keyring_that_hangs() -> None:
    ring = Hanging()
    credentials = keys(LOCAL, ring=ring, read_s=0.5, retry_s=0.0)

    await credentials.get("ollama")
    async with asyncio.timeout(0.1):
        assert await credentials.get("ollama") is None
    ring.answered.set()
    ring.secrets["sidecar", "ollama"] = '{"key": "k-1", "base_url": "http://localhost:11434/v1"}'
    await credentials.status()  # somebody looks, and the keyring was unlocked
    key = await credentials.get("ollama")

    assert key is not None and key.value == "k-1"


async def test_a_store_that_was_given_up_does_not_happen_later() -> None:
    ring = Hanging()
    credentials = keys(ring=ring)
    await credentials.get("openai")  # its deadline passes; the call itself holds the keyring

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await credentials.set("openai", "sk-1", persist=True)
    ring.answered.set()
    for thread in [thread for thread in threading.enumerate() if thread.name == "keyring"]:
        await asyncio.to_thread(thread.join, 5)

    assert ring.secrets == {}


async def test_a_store_behind_a_call_that_hangs_fails_by_its_deadline() -> None:
    ring = Hanging()
    credentials = keys(ring=ring, write_s=0.1)
    await credentials.get("openai")

    with pytest.raises(KeyringUnavailable):
        async with asyncio.timeout(5):
            await credentials.set("openai", "sk-1", persist=True)

    ring.answered.set()


def test_a_keyring_that_hangs_does_not_keep_the_program_from_ending() -> None:
    program = """
import asyncio, threading
from sidecar.credentials import Credentials, Keyring, Vendor

class Hanging:
    def get_password(self, service, username):
        threading.Event().wait()

keyring = Keyring("sidecar", Hanging, read_s=0.05)
asyncio.run(Credentials([Vendor("openai", "openai")], keyring, {}).get("openai"))
"""

    ended = subprocess.run([sys.executable, "-c", program], timeout=20, capture_output=True)

    assert (ended.returncode, ended.stderr) == (0, b"")


async def test_calls_to_the_keyring_come_one_at_a_time() -> None:
    inside, together = 0, []

    class Counting(Safe):
        def get_password(self, service: str, username: str) -> str | None:
            nonlocal inside
            inside += 1
            together.append(inside)
            threading.Event().wait(0.01)
            inside -= 1
            return None

    credentials = keys(OPENAI, GROQ, ring=Counting(), read_s=5.0)
    async with asyncio.timeout(5):
        await asyncio.gather(*(credentials.get(name) for name in ("openai", "groq") * 3))

    assert set(together) == {1}


async def test_what_was_read_is_kept_for_the_run() -> None:
    ring = Safe()
    credentials = keys(ring=ring)

    for _ in range(3):
        await credentials.get("openai")

    assert ring.calls == ["get"]


async def test_a_locked_keyring_is_not_asked_again_with_every_chat() -> None:
    ring = Failing(KeyringLocked("no prompt"))
    credentials = keys(ring=ring)

    for _ in range(3):
        assert await credentials.get("openai") is None
    (status,) = await credentials.status()

    assert ring.calls == ["get"]
    assert status.reason == "The keyring is locked. Unlock it and try again."


async def test_a_keyring_that_was_unlocked_is_asked_again_after_a_while() -> None:
    ring = Failing(KeyringLocked("no prompt"))
    credentials = keys(ring=ring, retry_s=0.0)
    await credentials.get("openai")

    await credentials.get("openai")

    assert ring.calls == ["get", "get"]


async def test_a_store_that_does_not_give_the_key_back_is_an_error() -> None:
    credentials = keys(ring=Forgetful())

    with pytest.raises(KeyringUnavailable, match="not stored"):
        await credentials.set("openai", "sk-1", persist=True)

    assert await credentials.get("openai") is None


async def test_no_error_and_no_representation_shows_a_key() -> None:
    secret = "sk-very-secret"
    credentials = keys(Vendor("openai", "openai", None, secret), ring=Failing(OSError(secret)))
    shown = [repr(Vendor("openai", "openai", None, secret)), repr(await credentials.get("openai"))]

    with pytest.raises(KeyringUnavailable) as caught:
        await credentials.set("openai", secret, persist=True)

    shown += [str(caught.value), repr(await credentials.status())]
    assert "OSError" in str(caught.value)
    assert secret not in "".join(shown)


async def test_every_key_is_told_before_it_is_used() -> None:
    told: list[str] = []
    credentials = Credentials(
        [OPENAI], Keyring("sidecar", Safe), {"OPENAI_API_KEY": "from-environment"}, told.append
    )

    await credentials.get("openai")
    await credentials.set("openai", "from-a-person", persist=False)

    assert told == ["from-environment", "from-a-person"]


@pytest.mark.parametrize("key", ["", "  ", "two words", "line\nbreak", "schlüssel", "bell\a"])
async def test_what_cannot_be_a_key_is_refused(key: str) -> None:
    with pytest.raises(BadRequest):
        await keys().set("openai", key, persist=False)


async def test_a_key_too_long_for_windows_is_refused_with_the_way_out() -> None:
    with pytest.raises(BadRequest, match="too long for a keyring"):
        await keys().set("openai", "k" * 1300, persist=True)

    assert (await keys().set("openai", "k" * 1300, persist=False)).source == "session"


async def test_delete_forgets_what_was_given_and_leaves_the_environment() -> None:
    ring = Safe()
    credentials = keys(ring=ring, environ={"OPENAI_API_KEY": "sk-1"})
    await credentials.set("openai", "for-good", persist=True)
    await credentials.set("openai", "for-now", persist=False)

    deleted, again = await credentials.delete("openai"), await credentials.delete("openai")

    key = await credentials.get("openai")
    assert (deleted, again, ring.secrets) == (True, False, {})
    assert key is not None and key.source == "environment"


async def test_deleting_a_key_of_this_run_needs_no_keyring() -> None:
    credentials = keys(ring=backend(fail.Keyring))
    await credentials.set("openai", "for-now", persist=False)

    assert await credentials.delete("openai")
    with pytest.raises(KeyringUnavailable):
        await credentials.delete("openai")


async def test_a_provider_that_there_is_not_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFound, match="There is no provider 'opnai'; the settings have: openai"):
        await keys().get("opnai")


async def test_the_demo_provider_asks_no_keyring() -> None:
    ring = Safe()

    assert await keys(Vendor("demo", "demo"), ring=ring).get("demo") is None
    assert ring.calls == []


async def test_the_status_names_the_back_end() -> None:
    (status,) = await keys().status()

    assert status.backend == "test_credentials Safe"


def test_the_keyring_library_is_not_imported_before_it_is_used() -> None:
    program = "import sidecar.credentials, sys; assert 'keyring' not in sys.modules"

    subprocess.run([sys.executable, "-c", program], timeout=20, check=True)
