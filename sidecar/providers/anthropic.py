"""Anthropic's API on its documented wire, and every server that speaks its Messages format."""

from collections.abc import Mapping

from multidict import CIMultiDict

from sidecar.providers.dialects.messages import Messages
from sidecar.providers.endpoint import Api
from sidecar.providers.http import Http
from sidecar.providers.wire import DirectWire, has_login

# The version of 2026-10-21 differs only in what it takes away, `temperature` and `top_p` for every
# model among it, and the other servers of this format know only the one before it.
API_VERSION = "2023-06-01"
KEY_HEADER = "x-api-key"


def anthropic_api(
    name: str, base_url: str, headers: Mapping[str, str], http: Http, connect_s: float
) -> Api:
    """`base_url` may end in `/v1`, as everybody writes it, or not, as the vendor's SDKs want it.

    Of the person's `headers`, one may name another version of the API.
    """
    address = base_url if base_url.endswith("/v1") else f"{base_url}/v1"
    sent = CIMultiDict({"anthropic-version": API_VERSION})
    sent.update(headers)
    is_known = has_login(headers, KEY_HEADER, "authorization")
    return Api(
        address,
        Messages(name),
        DirectWire(http, address, sent, connect_s, login=_login),
        key_variable=None if is_known else "ANTHROPIC_API_KEY",
    )


def _login(key: str) -> Mapping[str, str]:
    return {KEY_HEADER: key}
