"""The door key: what a person gives to other apps, good for `/v1` and for nothing else.

Made when somebody first asks to see it, and kept in the keyring under a name that no provider can
have; without a usable keyring it is good for this run only. The keyring is asked again before the
key is believed, since another process of the profile may have renewed it there.
"""

import asyncio
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from sidecar.credentials import Keyring
from sidecar.errors import KeyringUnavailable

PREFIX = "sk-sidecar-"  # apps that check a key's shape want `sk-`, and so does our redaction
USER = "door key"  # a provider's name has no space
FRESH_S = 1.0  # how long the keyring's word holds, so that guesses do not keep it busy


@dataclass(frozen=True, slots=True)
class ShownKey:
    """`is_kept` says whether it outlives this run."""

    value: str = field(repr=False)
    is_kept: bool


class DoorKey:
    """The door key of one profile. `on_key` is told it before it is used, so that logs hide it."""

    def __init__(
        self,
        keyring: Keyring,
        on_key: Callable[[str], None],
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._keyring = keyring
        self._on_key = on_key
        self._now = now
        self._key: ShownKey | None = None
        self._read_at = float("-inf")
        self._is_readable = True
        self._one_use = asyncio.Lock()  # two that find no key must not make two

    async def show(self) -> ShownKey:
        """The key, made if there is none yet."""
        async with self._one_use:
            await self._read()
            if self._key is not None:
                return self._key
            return await self._make() if self._is_readable else self._adopt(_new(), is_kept=False)

    async def renew(self) -> ShownKey:
        """Another key; the one before opens nothing from here on.

        Raises KeyringUnavailable when the keyring has the old one and does not let it go.
        """
        async with self._one_use:
            await self._read()
            had_kept = self._key is not None and self._key.is_kept
            if not self._is_readable and not had_kept:
                return self._adopt(_new(), is_kept=False)
            return await self._make()

    async def is_right(self, given: str) -> bool:
        """Compared in constant time; what cannot be a key costs the keyring nothing."""
        if not given.startswith(PREFIX):
            return False
        async with self._one_use:
            await self._read()
        key = self._key
        return key is not None and hmac.compare_digest(
            given.encode(errors="replace"), key.value.encode()
        )

    async def _read(self) -> None:
        """Take the keyring's word. While it gives none, what was known before holds."""
        is_of_this_run = self._key is not None and not self._key.is_kept
        if is_of_this_run or self._now() - self._read_at < FRESH_S:
            return
        try:
            kept = (await self._keyring.read([USER]))[USER]
        except KeyringUnavailable:
            self._is_readable = False
        else:
            self._is_readable = True
            self._key = None if kept is None else self._adopt(kept, is_kept=True)
        self._read_at = self._now()

    async def _make(self) -> ShownKey:
        """Keep a new key; where nothing could be kept before either, use it for this run."""
        key, had_kept = _new(), self._key is not None and self._key.is_kept
        self._on_key(key)
        try:
            await self._keyring.write(USER, key)
        except KeyringUnavailable:
            if had_kept:
                raise
            return self._adopt(key, is_kept=False)
        return self._adopt(key, is_kept=True)

    def _adopt(self, key: str, *, is_kept: bool) -> ShownKey:
        self._on_key(key)
        self._key = ShownKey(key, is_kept)
        return self._key


def _new() -> str:
    return PREFIX + secrets.token_urlsafe(32)
