"""`/v1`: the person's models for apps that speak OpenAI's HTTP API.

A request is one run like any other, with the same limits and the same consent; only the words
differ, and they are `openai_wire`'s. Raises SidecarError for what the app should read.
"""

from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from sidecar.chat.runs import Runs
from sidecar.errors import ModelNotFound
from sidecar.messages import JsonObject
from sidecar.providers.base import ModelInfo

KnownModels = Callable[[], Mapping[str, Sequence[ModelInfo] | None]]
"""By provider, what is known without asking a vendor; None where nothing is."""


class Door:
    def __init__(self, runs: Runs, known_models: KnownModels, default_model: str) -> None:
        self._runs = runs
        self._known_models = known_models
        self._default_model = default_model

    def routes(self) -> Sequence[web.RouteDef]:
        return (
            web.get("/v1/models", self._models),
            web.get("/v1/models/{model:.+}", self._model),
        )

    async def _models(self, request: web.Request) -> web.Response:
        listed = [_model(name) for name in self._names()]
        return web.json_response({"object": "list", "data": listed})

    async def _model(self, request: web.Request) -> web.Response:
        """A model of a provider that was not asked yet is not denied."""
        name = request.match_info["model"]
        provider, slash, model = name.partition("/")
        known = self._known_models()
        is_open = bool(slash and model) and provider in known and known[provider] is None
        if not is_open and name not in self._names():
            raise ModelNotFound(f"There is no model {name!r}; GET /v1/models lists those known.")
        return web.json_response(_model(name))

    def _names(self) -> Sequence[str]:
        """The default model first, which an app takes that lets nobody choose."""
        listed = (
            f"{provider}/{model.model}"
            for provider, models in self._known_models().items()
            for model in models or ()
        )
        return tuple(dict.fromkeys((self._default_model, *listed)))


def _model(name: str) -> JsonObject:
    return {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}
