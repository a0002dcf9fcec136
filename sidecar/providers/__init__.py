"""The only list of vendors' kinds, and how each is opened.

Each kind's adapter is imported when the first provider of that kind is opened.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, assert_never
from urllib.parse import urlsplit

from sidecar.config import DEFAULT_BASE_URLS, ProviderConfig, TimeoutsConfig
from sidecar.errors import ProviderError
from sidecar.providers.base import Provider

if TYPE_CHECKING:
    from sidecar.providers.discovery import Find
    from sidecar.providers.http import Http


def open_provider(
    name: str,
    section: ProviderConfig,
    *,
    http: "Http",
    key: Callable[[], Awaitable[str | None]],
    timeouts: TimeoutsConfig,
    max_retries: int,
    find_local: "Find",
) -> Provider:
    """The provider of one entry of the settings. Raises ProviderError if it cannot be served.

    `key` is asked before every request, and is already bound to this provider and its address.
    `find_local` finds what a person without a key can use instead.
    """
    if section.kind == "demo":
        from sidecar.providers.demo import DemoProvider

        return DemoProvider()
    from sidecar.providers.endpoint import Endpoint

    base_url, headers = _base_url(name, section), section.headers
    match section.kind:
        case "openai":
            from sidecar.providers.openai import openai_api

            speaks_chat = section.api == "chat"
            api = openai_api(name, base_url, headers, http, timeouts.connect_s, speaks_chat)
        case "openai_compatible":
            from sidecar.providers.compatible import compatible_api

            api = compatible_api(name, base_url, headers, http, timeouts.connect_s)
        case "anthropic":
            from sidecar.providers.anthropic import anthropic_api

            api = anthropic_api(name, base_url, headers, http, timeouts.connect_s)
        case "gemini":
            from sidecar.providers.gemini import gemini_api

            api = gemini_api(name, base_url, headers, http, timeouts.connect_s)
        case _:
            assert_never(section.kind)
    return Endpoint(
        name,
        api,
        key=key,
        timeouts=timeouts,
        max_retries=max_retries,
        find_local=find_local,
    )


def _base_url(name: str, section: ProviderConfig) -> str:
    base_url = section.base_url or DEFAULT_BASE_URLS[section.kind]
    if "@" in urlsplit(base_url).netloc:
        raise ProviderError(
            f"`providers.{name}.base_url` must hold no login; use `sidecar keys set {name}` or "
            "`headers`.",
            provider=name,
        )
    return base_url.rstrip("/")
