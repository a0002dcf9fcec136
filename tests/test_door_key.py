"""The door key: one per profile, kept in the keyring, and ended by the next."""

from collections.abc import Callable

import pytest
from keyring.errors import KeyringLocked

from sidecar.credentials import Backend, Keyring
from sidecar.door_key import FRESH_S, PREFIX, USER, DoorKey
from sidecar.errors import KeyringUnavailable
from tests.support.keyrings import MemoryKeyring


class Safe(MemoryKeyring):
    """Can be locked, for reading or for writing, and counts its readers."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.is_locked = False
        self.is_read_only = False

    def get_password(self, service: str, username: str) -> str | None:
        self.reads += 1
        if self.is_locked:
            raise KeyringLocked
        return super().get_password(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.is_locked or self.is_read_only:
            raise KeyringLocked
        super().set_password(service, username, password)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def safe() -> Safe:
    return Safe()


def door_key(
    backend: Backend,
    on_key: Callable[[str], None] = lambda key: None,
    now: Callable[[], float] = lambda: 0.0,
) -> DoorKey:
    return DoorKey(Keyring("sidecar", lambda: backend, retry_s=0), on_key, now)


async def test_it_is_made_once_and_is_the_same_in_the_next_run(safe: Safe) -> None:
    first = await door_key(safe).show()
    again = await door_key(safe).show()

    assert (first.is_kept, again) == (True, first)
    assert first.value.startswith(PREFIX)
    assert len(first.value) == len(PREFIX) + 43
    assert safe.secrets == {("sidecar", USER): first.value}


async def test_until_somebody_asks_for_it_there_is_none(safe: Safe) -> None:
    assert not await door_key(safe).is_right(PREFIX + "x" * 43)
    assert safe.secrets == {}


async def test_what_cannot_be_a_key_costs_the_keyring_nothing(safe: Safe) -> None:
    assert not await door_key(safe).is_right("sk-proj-0123456789")
    assert safe.reads == 0


async def test_guesses_do_not_keep_the_keyring_busy(safe: Safe) -> None:
    clock = Clock()
    key = door_key(safe, now=clock)

    for _ in range(100):
        assert not await key.is_right(PREFIX + "x" * 43)
    assert safe.reads == 1

    clock.now_s += FRESH_S
    await key.is_right(PREFIX + "x" * 43)
    assert safe.reads == 2


async def test_renewing_ends_the_old_one(safe: Safe) -> None:
    key = door_key(safe)
    old = await key.show()

    new = await key.renew()

    assert new.value != old.value
    assert (await key.is_right(old.value), await key.is_right(new.value)) == (False, True)
    assert await door_key(safe).show() == new


async def test_one_that_was_renewed_by_another_process_is_believed_no_longer(safe: Safe) -> None:
    clock = Clock()
    key = door_key(safe, now=clock)
    old = await key.show()

    new = await door_key(safe).renew()
    clock.now_s += FRESH_S

    assert (await key.is_right(old.value), await key.is_right(new.value)) == (False, True)


async def test_one_that_was_deleted_in_the_keyring_opens_nothing(safe: Safe) -> None:
    clock = Clock()
    key = door_key(safe, now=clock)
    old = await key.show()

    safe.secrets.clear()
    clock.now_s += FRESH_S

    assert not await key.is_right(old.value)


async def test_without_a_keyring_it_is_good_for_this_run(safe: Safe) -> None:
    safe.is_locked = True
    key = door_key(safe)

    shown = await key.show()

    assert not shown.is_kept
    assert await key.is_right(shown.value)
    assert (await key.show()) == shown
    renewed = await key.renew()
    assert not renewed.is_kept
    assert (await key.is_right(shown.value), await key.is_right(renewed.value)) == (False, True)


async def test_a_locked_keyring_does_not_lose_the_key_that_it_holds(safe: Safe) -> None:
    kept = await door_key(safe).show()

    safe.is_locked = True
    only_for_now = await door_key(safe).show()
    safe.is_locked = False

    assert only_for_now != kept
    assert await door_key(safe).show() == kept


async def test_a_keyring_that_is_locked_later_changes_nothing_for_an_app(safe: Safe) -> None:
    clock = Clock()
    key = door_key(safe, now=clock)
    shown = await key.show()

    safe.is_locked = True
    clock.now_s += FRESH_S

    assert await key.is_right(shown.value)


async def test_a_key_that_cannot_be_replaced_is_not_said_to_be_renewed(safe: Safe) -> None:
    key = door_key(safe)
    old = await key.show()
    safe.is_read_only = True

    with pytest.raises(KeyringUnavailable):
        await key.renew()

    assert await key.is_right(old.value)


async def test_a_keyring_that_takes_nothing_leaves_one_for_this_run(safe: Safe) -> None:
    safe.is_read_only = True

    assert not (await door_key(safe).show()).is_kept


async def test_logs_are_told_every_key_before_it_is_used(safe: Safe) -> None:
    told: list[str] = []
    key = door_key(safe, told.append)

    shown = await key.show()
    renewed = await key.renew()

    assert {shown.value, renewed.value} <= set(told)
    assert shown.value not in repr(shown)
