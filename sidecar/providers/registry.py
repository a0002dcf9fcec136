"""All configured providers: opened on first use, listed, tested, closed.

Knows which there are and nothing of how any of them works.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

from sidecar.config import ProviderConfig, TimeoutsConfig, is_loopback
from sidecar.errors import BadRequest, ModelNotFound, NotFound, ProviderError, SidecarError
from sidecar.providers import open_provider
from sidecar.providers.base import ModelInfo, Provider
from sidecar.providers.discovery import Find
from sidecar.providers.http import Http

CHEAP = 1.0  # a million tokens written, in USD


@dataclass(frozen=True, slots=True)
class Listing:
    """What one provider offers, or why that is not known."""

    provider: str
    models: Sequence[ModelInfo]
    error: ProviderError | None = None


class Providers:
    def __init__(
        self,
        sections: Mapping[str, ProviderConfig],
        *,
        http: Http,
        key: Callable[[str], Awaitable[str | None]],
        timeouts: TimeoutsConfig,
        max_retries: int,
        find_local: Find,
    ) -> None:
        """`key` finds a provider's key, by the provider's name."""
        self.find_local = find_local
        self.sections = sections
        self._http = http
        self._key = key
        self._timeouts = timeouts
        self._max_retries = max_retries
        self._opened: dict[str, Provider] = {}
        self._listings: dict[str, Listing] = {}

    def open(self, model: str) -> tuple[Provider, str]:
        """`provider/model` → the provider and its own id of the model; the latter may have `/`."""
        name, slash, model_id = model.partition("/")
        if not slash or not model_id:
            raise BadRequest(f"A model is written provider/model; {model!r} is not.")
        if name not in self.sections:
            known = ", ".join(self.sections)
            raise ModelNotFound(f"There is no provider {name!r}; the settings have: {known}.")
        return self._provider(name), model_id

    async def window(self, model: str) -> int | None:
        """How many tokens this model takes, as far as that is known without asking anybody."""
        provider, model_id = self.open(model)
        return self._section(model).context or (await provider.about(model_id)).context

    async def is_cheap(self, model: str) -> bool:
        """A few words of it cost nothing that anybody would notice."""
        provider, model_id = self.open(model)
        section = self._section(model)
        if section.kind == "demo":
            return False  # a script has nothing to say
        if section.base_url is not None and is_loopback(urlsplit(section.base_url).hostname):
            return True
        price = (await provider.about(model_id)).price
        return price is not None and price.output <= CHEAP

    def _section(self, model: str) -> ProviderConfig:
        return self.sections[model.partition("/")[0]]

    async def prepare(self, model: str) -> None:
        """Get ready for this model's first request; whether it works is the request's to say."""
        with suppress(SidecarError):
            provider, _ = self.open(model)
            await provider.prepare()

    async def list_models(self, *, refresh: bool) -> Sequence[Listing]:
        """Every provider's models, asked for at once; a failure is told, and asked again later."""
        if refresh:
            self._listings.clear()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._listing(name)) for name in self.sections]
        return [task.result() for task in tasks]

    def known_models(self) -> Mapping[str, Sequence[ModelInfo] | None]:
        """What is known without asking anybody; None for a provider that was not asked yet."""
        known = self._listings
        return {name: known[name].models if name in known else None for name in self.sections}

    async def test(self, name: str) -> tuple[Listing, float]:
        """Ask one provider now. Returns what it said and the seconds that it took."""
        if name not in self.sections:
            known = ", ".join(self.sections)
            raise NotFound(f"There is no provider {name!r}; the settings have: {known}.")
        self.forget(name)
        started = monotonic()
        return await self._listing(name), monotonic() - started

    def forget(self, name: str) -> None:
        """Its key has changed, so what it offers may have."""
        self._listings.pop(name, None)

    async def close(self) -> None:
        for provider in self._opened.values():
            await provider.close()
        await self._http.close()

    async def _listing(self, name: str) -> Listing:
        known = self._listings.get(name)
        if known is not None:
            return known
        try:
            listing = Listing(name, await self._provider(name).models())
        except ProviderError as error:
            return Listing(name, (), error)
        self._listings[name] = listing
        return listing

    def _provider(self, name: str) -> Provider:
        provider = self._opened.get(name)
        if provider is None:

            async def key() -> str | None:
                return await self._key(name)

            provider = self._opened[name] = open_provider(
                name,
                self.sections[name],
                http=self._http,
                key=key,
                timeouts=self._timeouts,
                max_retries=self._max_retries,
                find_local=self.find_local,
            )
        return provider
