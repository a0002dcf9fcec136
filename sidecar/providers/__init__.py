"""The only list of vendors' kinds, and how each is opened.

Each kind's adapter is imported when the first provider of that kind is opened.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, assert_never
from urllib.parse import urlsplit

from sidecar.config import DEFAULT_BASE_URLS, ProviderConfig, ProviderKind, TimeoutsConfig
from sidecar.errors import ProviderError
from sidecar.providers.base import Provider

if TYPE_CHECKING:
    from sidecar.providers.compatible import DirectWire
    from sidecar.providers.dialects.base import Dialect
    from sidecar.providers.http import Http
    from sidecar.providers.openai import SdkWire

_SUPPORTED = frozenset[ProviderKind](("openai", "openai_compatible", "anthropic", "gemini", "demo"))


def supports(kind: ProviderKind) -> bool:
    """Whether this version can talk to providers of this kind."""
    return kind in _SUPPORTED


def open_provider(
    name: str,
    section: ProviderConfig,
    *,
    http: "Http",
    key: Callable[[], Awaitable[str | None]],
    timeouts: TimeoutsConfig,
    max_retries: int,
) -> Provider:
    """The provider of one entry of the settings. Raises ProviderError if it cannot be served.

    `key` is asked before every request, and is already bound to this provider and its address.
    """
    match section.kind:
        case "demo":
            from sidecar.providers.demo import DemoProvider

            return DemoProvider()
        case "openai" | "openai_compatible":
            from sidecar.providers.endpoint import Endpoint

            is_openai = section.kind == "openai"
            base_url = _base_url(name, section)
            has_login = any(header.lower() == "authorization" for header in section.headers)
            return Endpoint(
                name,
                base_url,
                _openai_dialect(name, section),
                _wire(section.kind)(http, base_url, section.headers, timeouts.connect_s),
                key=key,
                key_variable="OPENAI_API_KEY" if is_openai and not has_login else None,
                timeouts=timeouts,
                max_retries=max_retries,
                advice=_advice(section),
            )
        case "anthropic":
            from sidecar.providers.anthropic import open_anthropic

            return open_anthropic(
                name,
                _base_url(name, section),
                section.headers,
                http=http,
                key=key,
                timeouts=timeouts,
                max_retries=max_retries,
            )
        case "gemini":
            from sidecar.providers.gemini import open_gemini

            return open_gemini(
                name,
                _base_url(name, section),
                section.headers,
                http=http,
                key=key,
                timeouts=timeouts,
                max_retries=max_retries,
            )
        case _:
            assert_never(section.kind)


def _openai_dialect(name: str, section: ProviderConfig) -> "Dialect":
    if section.kind == "openai" and section.api != "chat":
        from sidecar.providers.dialects.responses import Responses

        return Responses(name)
    from sidecar.providers.dialects.chat_completions import ChatCompletions

    is_openai = section.kind == "openai"
    return ChatCompletions(name, "max_completion_tokens" if is_openai else "max_tokens")


def _advice(section: ProviderConfig) -> str:
    is_elsewhere = section.base_url not in (None, DEFAULT_BASE_URLS["openai"])
    if section.kind != "openai" or section.api == "chat" or not is_elsewhere:
        return ""
    return " (A server that knows only OpenAI's older API needs `api: chat`.)"


def _wire(kind: Literal["openai", "openai_compatible"]) -> "type[SdkWire | DirectWire]":
    if kind == "openai":
        from sidecar.providers.openai import SdkWire

        return SdkWire
    from sidecar.providers.compatible import DirectWire

    return DirectWire


def _base_url(name: str, section: ProviderConfig) -> str:
    base_url = section.base_url or DEFAULT_BASE_URLS[section.kind]
    if "@" in urlsplit(base_url).netloc:
        raise ProviderError(
            f"`providers.{name}.base_url` must hold no login; use `sidecar keys set {name}` or "
            "`headers`.",
            provider=name,
        )
    return base_url.rstrip("/")
