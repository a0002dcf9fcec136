"""Any server that speaks OpenAI's chat completions format."""

from collections.abc import Mapping

from sidecar.providers.dialects.chat_completions import ChatCompletions
from sidecar.providers.endpoint import Api
from sidecar.providers.http import Http
from sidecar.providers.wire import DirectWire


def compatible_api(
    name: str, base_url: str, headers: Mapping[str, str], http: Http, connect_s: float
) -> Api:
    wire = DirectWire(http, base_url, headers, connect_s)
    return Api(base_url, ChatCompletions(name, "max_tokens"), wire)
