"""Google's Gemini API, on its documented wire."""

from collections.abc import Mapping

from sidecar.providers.dialects.generate_content import GenerateContent
from sidecar.providers.endpoint import Api
from sidecar.providers.http import Http
from sidecar.providers.wire import DirectWire, has_login

KEY_HEADER = "x-goog-api-key"  # never in the address, where logs of proxies would have it


def gemini_api(
    name: str, base_url: str, headers: Mapping[str, str], http: Http, connect_s: float
) -> Api:
    """`base_url` may end in `/v1beta`, with which the format's paths begin."""
    address = base_url.removesuffix("/v1beta")
    is_known = has_login(headers, KEY_HEADER, "authorization")
    return Api(
        address,
        GenerateContent(name),
        DirectWire(http, address, headers, connect_s, login=_login),
        key_variable=None if is_known else "GEMINI_API_KEY",
    )


def _login(key: str) -> Mapping[str, str]:
    return {KEY_HEADER: key}
