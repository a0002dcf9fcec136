"""What authorization servers gave us, in one encrypted file whose key is in the OS keyring.

An account is what one of them knows us as for one MCP server, and the tokens of it. Without a
usable keyring accounts are kept in memory and end with the program; `problem` says why. Nothing
here speaks to anybody. `cryptography` is imported where it is used, off the loop.
"""

import asyncio
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog
from pydantic import Field, TypeAdapter, ValidationError

from sidecar.credentials import Keyring
from sidecar.errors import KeyringUnavailable
from sidecar.messages import Value
from sidecar.private_file import write_private
from sidecar.threads import load_modules, run_in_thread

USER = "token key"  # in the keyring; a provider's name has no space
HEADER = b"sidecar tokens 1\n"  # told apart from other versions, and authenticated with the rest
NONCE_BYTES = 12
EARLY_S = 60.0  # before a token expires it is renewed, so that it does not expire on its way
CIPHERS = "cryptography.hazmat.primitives.ciphers.aead"

log = structlog.get_logger()


class Tokens(Value):
    """Times are absolute, in seconds since 1970, since they must outlive a restart."""

    access_token: str = Field(repr=False)
    refresh_token: str | None = Field(repr=False)
    obtained_at: float
    expires_at: float | None
    scope: str | None

    def is_stale(self) -> bool:
        """Whether it has expired, or is about to."""
        if self.expires_at is None:
            return False
        early_s = min(EARLY_S, (self.expires_at - self.obtained_at) / 10)
        return time.time() > self.expires_at - early_s

    def has_expired(self) -> bool:
        return self.expires_at is not None and time.time() > self.expires_at


class Account(Value):
    """`redirect_uri` is the one that the registration pins; `auth_method` is RFC 7591's name."""

    server_url: str = Field(repr=False)
    issuer: str
    client_id: str
    client_secret: str | None = Field(repr=False)
    auth_method: str | None
    redirect_uri: str
    token_endpoint: str
    revocation_endpoint: str | None
    resource: str | None
    tokens: Tokens | None


Key = tuple[str, str]  # the MCP server's url and the issuer


class Vault:
    """All accounts. `on_secret` is told each secret before it is used, so that logs can hide it."""

    def __init__(
        self, file: Path | None, keyring: Keyring, on_secret: Callable[[str], None]
    ) -> None:
        """`file` None keeps them for this run only."""
        self.on_secret = on_secret
        self.problem: str | None = None
        """Why what was kept is not there, or what is new is not kept: a sentence."""
        self._file = file
        self._keyring = keyring
        self._accounts: dict[Key, Account] = {}
        self._key: bytes | None = None
        self._is_open = file is None
        self._is_kept = False
        self._one_use = asyncio.Lock()

    async def find(self, server_url: str) -> Account | None:
        """The newest account for this server, one with tokens before one without."""
        if not self._is_open:
            async with self._one_use:
                await self._open()
        return self.known(server_url)

    def known(self, server_url: str) -> Account | None:
        """The same, of what has been read by now."""
        mine = [each for each in self._accounts.values() if each.server_url == server_url]
        with_tokens = [each for each in mine if each.tokens is not None]
        return next(reversed(with_tokens or mine), None)

    @property
    def is_kept(self) -> bool:
        """Whether what is here outlives this run."""
        return self._is_kept

    async def add(self, account: Account) -> None:
        """A person has signed in; tokens for this server from elsewhere are of no more use."""
        async with self._one_use:
            await self._open()
            for key, other in self._accounts.items():
                if other.server_url == account.server_url:
                    self._accounts[key] = other.model_copy(update={"tokens": None})
            self._put(account)
            await self._make_key()
            await self._save()

    async def change(self, account: Account) -> None:
        """Other tokens, or none, for an account that is here."""
        async with self._one_use:
            self._put(account)
            await self._save()

    async def remove(self, account: Account) -> None:
        async with self._one_use:
            self._accounts.pop(_key(account), None)
            await self._save()

    def _put(self, account: Account) -> None:
        self._tell(account)
        self._accounts.pop(_key(account), None)  # so that it is the newest
        self._accounts[_key(account)] = account

    def _tell(self, account: Account) -> None:
        tokens = account.tokens
        held = (tokens.access_token, tokens.refresh_token) if tokens else ()
        for secret in (account.client_secret, *held):
            if secret:
                self.on_secret(secret)

    async def _open(self) -> None:
        """Read the file, once; while the keyring gives no key, what is new stays in memory."""
        file = self._file
        if self._is_open or file is None:
            return
        try:
            sealed = await run_in_thread(partial(_read, file), "read tokens")
            if sealed is not None:
                key = (await self._keyring.read([USER])).get(USER)
                accounts = await _unsealed(sealed, key)
                self._key = None if key is None else b64decode(key)
                self._accounts = {**accounts, **self._accounts}
                self._is_kept = True
        except KeyringUnavailable as error:
            self.problem = f"What it was given before cannot be read: {error}"
            return
        except (OSError, ValueError) as error:
            await run_in_thread(partial(_put_aside, file), "put tokens aside")
            self.problem = "The file with what it was given before was damaged, and is put aside."
            log.warning("tokens_unreadable", reason=type(error).__name__)
        else:
            self.problem = None
        self._is_open = True
        for account in self._accounts.values():
            self._tell(account)

    async def _make_key(self) -> None:
        if self._file is None or not self._is_open or self._key is not None:
            return
        key = secrets.token_bytes(32)
        text = b64encode(key).decode()
        self.on_secret(text)
        try:
            await self._keyring.write(USER, text)
        except KeyringUnavailable as error:
            self.problem = f"It is signed in for this run only: {error}"
            log.warning("tokens_not_kept", reason="keyring_unavailable")
        else:
            self._key = key
            self.problem = None

    async def _save(self) -> None:
        self._is_kept = False
        file, key = self._file, self._key
        if file is None or key is None or not self._is_open:
            return
        data = _adapter().dump_json(list(self._accounts.values()))
        try:
            await load_modules(CIPHERS)
            await run_in_thread(lambda: write_private(file, _sealed(data, key)), "write tokens")
        except OSError as error:
            self.problem = f"It is signed in for this run only: {file}: {error.strerror}."
            log.warning("tokens_not_kept", reason=error.strerror)
        else:
            self._is_kept = True


def _key(account: Account) -> Key:
    return account.server_url, account.issuer


def _adapter() -> TypeAdapter[list[Account]]:
    return TypeAdapter(list[Account])


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _put_aside(file: Path) -> None:
    with suppress(OSError):
        file.replace(file.with_suffix(".broken"))


def _sealed(data: bytes, key: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(NONCE_BYTES)
    return HEADER + nonce + AESGCM(key).encrypt(nonce, data, HEADER)


async def _unsealed(sealed: bytes, key: str | None) -> Mapping[Key, Account]:
    """Raises ValueError for what was not sealed with this key, or is not whole."""
    await load_modules(CIPHERS, "cryptography.exceptions")

    def unseal() -> Mapping[Key, Account]:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if key is None or not sealed.startswith(HEADER):
            raise ValueError("no key, or no such file")
        body = sealed.removeprefix(HEADER)
        nonce, encrypted = body[:NONCE_BYTES], body[NONCE_BYTES:]
        try:
            data = AESGCM(b64decode(key)).decrypt(nonce, encrypted, HEADER)
            accounts = _adapter().validate_json(data)
        except (InvalidTag, ValidationError) as error:
            raise ValueError(type(error).__name__) from None  # its text quotes what it was given
        return {_key(account): account for account in accounts}

    return await run_in_thread(unseal, "open tokens")
