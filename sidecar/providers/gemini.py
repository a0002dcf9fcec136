"""Google's Gemini API, on its documented wire."""

from collections.abc import Awaitable, Callable, Mapping

from sidecar.config import TimeoutsConfig
from sidecar.providers.compatible import DirectWire
from sidecar.providers.dialects.generate_content import GenerateContent
from sidecar.providers.endpoint import Endpoint
from sidecar.providers.http import Http

KEY_HEADER = "x-goog-api-key"  # never in the address, where logs of proxies would have it


def open_gemini(
    name: str,
    base_url: str,
    headers: Mapping[str, str],
    *,
    http: Http,
    key: Callable[[], Awaitable[str | None]],
    timeouts: TimeoutsConfig,
    max_retries: int,
) -> Endpoint:
    address = base_url.removesuffix("/v1beta")  # the format's paths begin with it
    has_login = any(header.lower() in (KEY_HEADER, "authorization") for header in headers)
    return Endpoint(
        name,
        address,
        GenerateContent(name),
        DirectWire(http, address, headers, timeouts.connect_s, _login),
        key=key,
        key_variable=None if has_login else "GEMINI_API_KEY",
        timeouts=timeouts,
        max_retries=max_retries,
    )


def _login(key: str) -> Mapping[str, str]:
    return {KEY_HEADER: key}
