"""Vendors, models and keys."""

import asyncio
from typing import TypeVar

from sidecar.credentials import Credentials
from sidecar.protocol.base import Empty
from sidecar.protocol.frames import error_info
from sidecar.protocol.providers import (
    KeyChange,
    KeyItem,
    KeysChanged,
    KeysSetPayload,
    KeysSetResult,
    KeysStatusResult,
    LocalServer,
    ModelItem,
    ModelsListResult,
    ProviderFault,
    ProviderItem,
    ProvidersListResult,
    ProvidersTestResult,
)
from sidecar.providers.discovery import Found
from sidecar.providers.registry import Providers
from sidecar.server.handlers.services import Services

R = TypeVar("R")


async def list_models(providers: Providers, *, refresh: bool) -> ModelsListResult:
    listings = await providers.list_models(refresh=refresh)
    items = tuple(
        ModelItem(
            model=f"{listing.provider}/{model.model}",
            provider=listing.provider,
            name=model.name,
            context=model.context,
            max_output=model.max_output,
            vision=model.vision,
            tools=model.tools,
            reasoning=model.reasoning,
            price=model.price,
        )
        for listing in listings
        for model in listing.models
    )
    faults = tuple(
        ProviderFault(
            provider=listing.provider, code=listing.error.code, message=str(listing.error)
        )
        for listing in listings
        if listing.error is not None
    )
    return ModelsListResult(items=items, errors=faults)


async def list_providers(services: Services) -> ProvidersListResult:
    status, found = await asyncio.gather(
        key_status(services.credentials), services.providers.find_local()
    )
    keys = {item.provider: item.set for item in status.items}
    return ProvidersListResult(
        found=tuple(map(_local_server, found)),
        items=tuple(
            ProviderItem(
                provider=name,
                kind=section.kind,
                base_url=section.base_url,
                key_set=keys.get(name, False),
            )
            for name, section in services.providers.sections.items()
        ),
    )


def _local_server(found: Found) -> LocalServer:
    place = found.place
    prefix = f"{place.provider}/" if place.provider else ""
    return LocalServer(
        name=place.name,
        base_url=place.base_url,
        provider=place.provider,
        models=tuple(prefix + model for model in found.models),
    )


async def test(providers: Providers, name: str) -> ProvidersTestResult:
    listing, seconds = await providers.test(name)
    return ProvidersTestResult(
        provider=name,
        ok=listing.error is None,
        models=None if listing.error else len(listing.models),
        duration_ms=round(seconds * 1000),
        error=None if listing.error is None else str(listing.error),
        error_info=None if listing.error is None else error_info(listing.error),
    )


async def key_status(credentials: Credentials) -> KeysStatusResult:
    states = await credentials.status()
    return KeysStatusResult(
        items=tuple(
            KeyItem(
                provider=state.provider,
                set=state.source is not None,
                source=state.source,
                backend=state.backend,
                reason=state.reason,
            )
            for state in states
        )
    )


async def set_key(services: Services, key: KeysSetPayload) -> KeysSetResult:
    stored = await services.credentials.set(key.provider, key.key, persist=key.persist)
    result = KeysSetResult(source=stored.source, shadowed_by=stored.shadowed_by)
    return _key_changed(services, key.provider, result)


async def delete_key(services: Services, provider: str) -> Empty:
    await services.credentials.delete(provider)
    return _key_changed(services, provider, Empty())


def _key_changed(services: Services, provider: str, result: R) -> R:
    services.providers.forget(provider)
    services.publish(KeysChanged(data=KeyChange(provider=provider)))
    return result
