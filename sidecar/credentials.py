"""The keys of the vendors: given for this run, in the settings, in the OS keyring, in a variable.

A key from the keyring or a variable goes only to the vendor's own address, or to the one that
stood in the settings when it was stored. The keyring is asked off the loop, one call at a time and
with a deadline; without a usable one nothing is kept anywhere else instead. No error, no status
and no representation has a key in it.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from sidecar import jsons
from sidecar.config import DEFAULT_BASE_URLS, is_loopback
from sidecar.errors import BadRequest, KeyringUnavailable, NotFound, SidecarError
from sidecar.threads import run_in_thread

READ_S = 5.0  # a locked keyring may wait for a prompt that nobody sees
WRITE_S = 60.0  # somebody is there, and types the keyring's password
RETRY_S = 30.0  # a prompt that was refused must not come back with every chat
MAX_SECRET_BYTES = 2560  # of UTF-16, Windows' limit; kept everywhere so that all machines agree

T = TypeVar("T")
Source = Literal["session", "config", "keyring", "environment"]


@dataclass(frozen=True, slots=True)
class Vendor:
    """What the settings say of one provider."""

    name: str
    kind: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Key:
    value: str = field(repr=False)
    source: Source


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """`source` is None without a key; `reason` says what kept one from being found or used."""

    provider: str
    source: Source | None
    backend: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """Where a key was put, and the source that is looked at before it, if there is one."""

    source: Literal["session", "keyring"]
    shadowed_by: Source | None


class Backend(Protocol):
    """What we use of a keyring's back end; each call may block, prompt or raise anything."""

    def get_password(self, service: str, username: str) -> str | None: ...

    def set_password(self, service: str, username: str, password: str) -> None: ...

    def delete_password(self, service: str, username: str) -> None: ...


def service_name(profile: str | None) -> str:
    """The name under which a profile's secrets stand in the keyring."""
    return "sidecar" if profile is None else f"sidecar:{profile}"


def system_backend() -> Backend:
    """The platform's keyring. Imports and looks for it, so not on the event loop."""
    import keyring

    return keyring.get_keyring()


class Keyring:
    """The one door to the OS keyring. Every failure is KeyringUnavailable and says what to do.

    `backend` is the name of the back end, once it was used.
    """

    def __init__(
        self,
        service: str,
        open_backend: Callable[[], Backend] = system_backend,
        *,
        read_s: float = READ_S,
        write_s: float = WRITE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self.backend: str | None = None
        self._service = service
        self._open_backend = open_backend
        self._read_s = read_s
        self._write_s = write_s
        self._retry_s = retry_s
        self._opened: Backend | None = None
        self._one_call = threading.Lock()  # held by threads, so that an abandoned call counts
        self._failure = ""
        self._failed_at = float("-inf")

    @property
    def has_failed(self) -> bool:
        """Whether the last that was asked of it failed."""
        return bool(self._failure)

    async def read(self, users: Sequence[str]) -> Mapping[str, str | None]:
        """The secrets of these users; one that the deadline leaves no time for is not in it."""

        def look(backend: Backend) -> Mapping[str, str | None]:
            end = time.monotonic() + self._read_s / 2  # so that the last one begun can end
            found: dict[str, str | None] = {}
            for user in users:
                if found and time.monotonic() > end:
                    break
                found[user] = backend.get_password(self._service, user)
            return found

        return await self._ask(look)

    async def probe(self) -> None:
        """Make sure that there is a usable keyring, reading nothing."""
        if self.backend is None:
            await self._ask(lambda backend: None)

    async def write(self, user: str, secret: str) -> None:
        """Store a secret and read it back."""

        def store(backend: Backend) -> None:
            backend.set_password(self._service, user, secret)
            if backend.get_password(self._service, user) != secret:
                raise KeyringUnavailable(
                    "The keyring took the key and did not give it back: it is not stored."
                    " Use it for this run only, or set the vendor's environment variable."
                )

        await self._call(store, self._write_s)
        self._failure = ""

    async def delete(self, user: str) -> bool:
        """Remove a secret for good; False when there was none."""

        def remove(backend: Backend) -> bool:
            if backend.get_password(self._service, user) is None:
                return False
            backend.delete_password(self._service, user)
            if backend.get_password(self._service, user) is not None:
                raise KeyringUnavailable(
                    "The keyring still has the key after deleting it. Delete it in the keyring's"
                    f" own program: service {self._service}, user {user}."
                )
            return True

        return await self._call(remove, self._write_s)

    async def _ask(self, function: Callable[[Backend], T]) -> T:
        if self._failure and time.monotonic() - self._failed_at < self._retry_s:
            raise KeyringUnavailable(self._failure)
        try:
            answer = await self._call(function, self._read_s)
        except KeyringUnavailable as error:
            self._failure, self._failed_at = str(error), time.monotonic()
            raise
        self._failure = ""
        return answer

    async def _call(self, function: Callable[[Backend], T], deadline_s: float) -> T:
        given_up = threading.Event()

        def work() -> T:
            if not self._one_call.acquire(timeout=deadline_s):
                raise KeyringUnavailable("An earlier call to the keyring has not ended.")
            try:
                if given_up.is_set():  # too late: the caller was told that it failed
                    raise KeyringUnavailable("An earlier call to the keyring took too long.")
                return function(self._usable_backend())
            finally:
                self._one_call.release()

        try:
            async with asyncio.timeout(deadline_s):
                return await run_in_thread(lambda: _translated(work), "keyring")
        except TimeoutError:
            raise KeyringUnavailable(
                f"The keyring did not answer within {deadline_s:g} s. Unlock it and try again."
            ) from None
        finally:
            given_up.set()

    def _usable_backend(self) -> Backend:
        if self._opened is None:
            self._opened = _usable(self._open_backend())
            self.backend = _title(self._opened)
        return self._opened


def _translated(work: Callable[[], T]) -> T:
    from keyring.errors import KeyringLocked

    try:
        return work()
    except SidecarError:
        raise
    except KeyringLocked:
        raise KeyringUnavailable("The keyring is locked. Unlock it and try again.") from None
    except Exception as error:  # back ends raise D-Bus, COM and OS errors, with no base in common
        # its text is dropped, and the chain with it: it may quote the key
        raise KeyringUnavailable(
            f"The keyring failed ({type(error).__name__}). Unlock it, or restart it, and try again."
        ) from None


def _usable(found: Backend) -> Backend:
    """The first back end that keeps secrets; a chainer would also write to the ones that do not."""
    from keyring.backends import chainer, fail, null

    for backend in found.backends if isinstance(found, chainer.ChainerBackend) else (found,):
        is_plain = "plaintext" in type(backend).__name__.lower()
        if not is_plain and not isinstance(backend, fail.Keyring | null.Keyring):
            return backend
    raise KeyringUnavailable(
        "This machine has no keyring that keeps secrets. Start one (GNOME Keyring, KWallet or"
        " KeePassXC), set the vendor's environment variable, or give the key for this run only."
    )


def _title(backend: Backend) -> str:
    """`SecretService Keyring`, `Windows WinVaultKeyring`, as the keyring library says it."""
    module = type(backend).__module__.rpartition(".")[2]
    return f"{module} {type(backend).__name__}"


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a vendor lives, and the variable that its own programs read."""

    address: str
    variable: str


_HOMES = {
    kind: _Home(address, f"{kind.upper()}_API_KEY") for kind, address in DEFAULT_BASE_URLS.items()
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the keyring holds for a provider; `base_url` is the settings' when it was stored."""

    key: str = field(repr=False)
    base_url: str | None


class Credentials:
    """The key of each provider, by the order of looking.

    `on_key` is told every key that is seen, before it is used, so that logs can hide it.
    """

    def __init__(
        self,
        vendors: Iterable[Vendor],
        keyring: Keyring,
        environ: Mapping[str, str],
        on_key: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._vendors = {vendor.name: vendor for vendor in vendors}
        self._keyring = keyring
        self._environ = environ
        self._on_key = on_key
        self._session: dict[str, str] = {}
        self._entries: dict[str, _Entry | None] = {}  # as read, for this run

    async def get(self, provider: str) -> Key | None:
        """The key to use now. Raises NotFound for a provider that the settings do not have."""
        vendor = self._vendor(provider)
        # A server here seldom has a key: its chats must not wait for a keyring that hangs.
        is_left_out = self._keyring.has_failed and _is_on_this_machine(vendor)
        key, _ = self._look(vendor, None if is_left_out else await self._read([vendor]))
        return key

    async def status(self) -> list[KeyStatus]:
        with contextlib.suppress(KeyringUnavailable):  # whoever needs it says so below
            await self._keyring.probe()
        vendors = list(self._vendors.values())
        reason = await self._read(vendors)
        return [self._status(vendor, reason) for vendor in vendors]

    async def set(self, provider: str, key: str, persist: bool) -> StoredKey:
        """Keep a key in the keyring, or in memory until the program ends.

        Raises NotFound, BadRequest for what cannot be a key, and KeyringUnavailable.
        """
        vendor = self._vendor(provider)
        key = _checked(key)
        self._on_key(key)
        if not persist:
            self._session[provider] = key
            return StoredKey("session", None)
        entry = _Entry(key, vendor.base_url)
        await self._keyring.write(provider, _encoded(entry))
        self._entries[provider] = entry
        if provider in self._session:
            return StoredKey("keyring", "session")
        return StoredKey("keyring", "config" if vendor.api_key else None)

    async def delete(self, provider: str) -> bool:
        """Forget the keys that were given to us; one in the settings or the environment stays.

        False when there was none. Raises NotFound, and KeyringUnavailable unless a key that was
        given for this run is what was deleted.
        """
        self._vendor(provider)
        was_given = self._session.pop(provider, None) is not None
        try:
            was_stored = await self._keyring.delete(provider)
        except KeyringUnavailable:
            if was_given:
                return True
            raise
        self._entries[provider] = None
        return was_given or was_stored

    def _status(self, vendor: Vendor, reason: str | None) -> KeyStatus:
        key, reason = self._look(vendor, reason)
        source = None if key is None else key.source
        return KeyStatus(vendor.name, source, self._keyring.backend, reason)

    def _vendor(self, provider: str) -> Vendor:
        vendor = self._vendors.get(provider)
        if vendor is None:
            known = ", ".join(self._vendors)
            raise NotFound(f"There is no provider {provider!r}; the settings have: {known}.")
        return vendor

    async def _read(self, vendors: Sequence[Vendor]) -> str | None:
        """Read what the keyring holds for these, where it matters; why it could not be read."""
        wanted = [vendor for vendor in vendors if self._needs_keyring(vendor)]
        if not wanted:
            return None
        try:
            texts = await self._keyring.read([vendor.name for vendor in wanted])
        except KeyringUnavailable as error:
            return str(error)
        for name, text in texts.items():
            self._entries[name] = None if text is None else _decoded(text)
        return None if len(texts) == len(wanted) else "The keyring is slow: ask again for this key."

    def _needs_keyring(self, vendor: Vendor) -> bool:
        is_given = bool(self._session.get(vendor.name) or vendor.api_key)
        return vendor.kind != "demo" and not is_given and vendor.name not in self._entries

    def _look(self, vendor: Vendor, unread: str | None) -> tuple[Key | None, str | None]:
        """The key, and why a better place for it had none to give; `unread` is the keyring's."""
        if vendor.kind == "demo":
            return None, None
        if value := self._session.get(vendor.name):
            return self._found(value, "session"), None
        if vendor.api_key:
            return self._found(vendor.api_key, "config"), None
        entry, reason = self._entry(vendor, unread)
        if entry is not None:
            return self._found(entry.key, "keyring"), None
        home = _home(vendor)
        value = self._environ.get(home.variable, "").strip() if home else ""
        if home is None or not value:
            return None, reason
        if not _is_at_home(vendor):
            return None, reason or (
                f"{home.variable} is set, and goes to {home.address} only; the settings say"
                f" {_shown(vendor.base_url)}. Set a key for it with `sidecar keys set"
                f" {vendor.name}`."
            )
        return self._found(value, "environment"), reason

    def _entry(self, vendor: Vendor, unread: str | None) -> tuple[_Entry | None, str | None]:
        if vendor.name not in self._entries:
            return None, unread
        entry = self._entries[vendor.name]
        if entry is None or _same(entry.base_url, vendor.base_url):
            return entry, None
        if _is_at_home(vendor) and (
            entry.base_url is None or _is_at_home(replace(vendor, base_url=entry.base_url))
        ):
            return entry, None
        return None, (
            f"The key in the keyring was stored for {_shown(entry.base_url)}; the settings say"
            f" {_shown(vendor.base_url)}. Set it again with `sidecar keys set {vendor.name}`."
        )

    def _found(self, value: str, source: Source) -> Key:
        self._on_key(value)
        return Key(value, source)


def _checked(key: str) -> str:
    key = key.strip()
    if not key:
        raise BadRequest("The key is empty.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadRequest("A key is one word of ASCII characters; this has others in it.")
    return key


def _encoded(entry: _Entry) -> str:
    text = json.dumps({"key": entry.key, "base_url": entry.base_url})
    size = len(text.encode("utf-16"))
    if size > MAX_SECRET_BYTES:
        raise BadRequest(
            f"The key is too long for a keyring: {size} bytes with its address, and Windows takes"
            f" {MAX_SECRET_BYTES}. Give it for this run only, or in the settings as ${{NAME}}."
        )
    return text


def _decoded(text: str) -> _Entry:
    """A bare key was stored with another program: it has no address but the vendor's own."""
    try:
        value = jsons.loads(text)
    except ValueError:
        return _Entry(text, None)
    match value:
        case {"key": str(key), "base_url": str(base_url)}:
            return _Entry(key, base_url)
        case {"key": str(key)}:
            return _Entry(key, None)
    return _Entry(text, None)


def _home(vendor: Vendor) -> _Home | None:
    return _HOMES.get(vendor.kind) or _HOMES.get(vendor.name)


def _is_at_home(vendor: Vendor) -> bool:
    home = _home(vendor)
    if home is None:
        return False
    if vendor.base_url is None:
        return vendor.kind in _HOMES
    return _address(vendor.base_url)[:3] == _address(home.address)[:3]


def _is_on_this_machine(vendor: Vendor) -> bool:
    return vendor.base_url is not None and is_loopback(urlsplit(vendor.base_url).hostname)


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and _address(one) == _address(other)


def _address(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and path, spelt in one way."""
    parts = urlsplit(url)  # the settings have checked it
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port, parts.path.rstrip("/")


def _shown(base_url: str | None) -> str:
    """An address without the secrets that it may carry."""
    if base_url is None:
        return "the vendor's own address"
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
