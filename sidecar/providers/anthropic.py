"""Anthropic's API on its documented wire, and every server that speaks its Messages format."""

from collections.abc import Awaitable, Callable, Mapping

from multidict import CIMultiDict

from sidecar.config import TimeoutsConfig
from sidecar.providers.compatible import DirectWire
from sidecar.providers.dialects.messages import Messages
from sidecar.providers.endpoint import Endpoint
from sidecar.providers.http import Http

# The version of 2026-10-21 differs only in what it takes away, `temperature` and `top_p` for every
# model among it, and the other servers of this format know only the one before it.
API_VERSION = "2023-06-01"
_LOGINS = ("x-api-key", "authorization")


def open_anthropic(
    name: str,
    base_url: str,
    headers: Mapping[str, str],
    *,
    http: Http,
    key: Callable[[], Awaitable[str | None]],
    timeouts: TimeoutsConfig,
    max_retries: int,
) -> Endpoint:
    """`base_url` may end in `/v1`, as everybody writes it, or not, as the vendor's SDKs want it.

    Of the person's `headers`, one may name another version of the API.
    """
    base_url = base_url if base_url.endswith("/v1") else f"{base_url}/v1"
    sent = CIMultiDict({"anthropic-version": API_VERSION})
    sent.update(headers)
    return Endpoint(
        name,
        base_url,
        Messages(name),
        DirectWire(http, base_url, sent, timeouts.connect_s, login=_api_key),
        key=key,
        key_variable=None if any(login in sent for login in _LOGINS) else "ANTHROPIC_API_KEY",
        timeouts=timeouts,
        max_retries=max_retries,
    )


def _api_key(key: str) -> Mapping[str, str]:
    return {"x-api-key": key}
