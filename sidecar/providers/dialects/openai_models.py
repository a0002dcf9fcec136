"""A list of models in OpenAI's form, with what other vendors add to it."""

import re

from pydantic import JsonValue

from sidecar import jsons
from sidecar.providers.base import ModelInfo
from sidecar.providers.dialects.base import count, listing

_CANNOT_CHAT = re.compile(  # ids in OpenAI's list that this API does not serve
    r"^(text-embedding|whisper|tts|dall-e|gpt-image|sora|omni-moderation|text-moderation"
    r"|babbage|davinci|computer-use)|-(tts|transcribe|realtime)\b"
)


def parse_models(body: bytes) -> list[ModelInfo]:
    """The models that can chat, by id. Raises ValueError."""
    answer = jsons.loads(body)
    listed = answer.get("data", answer.get("models")) if isinstance(answer, dict) else answer
    return listing(listed, _model)


def _model(row: dict[str, JsonValue]) -> ModelInfo | None:
    """One row of a list of models, with what OpenRouter, Mistral, Groq and vLLM add to it."""
    model = row.get("id")
    if not isinstance(model, str) or _CANNOT_CHAT.search(model):
        return None
    capabilities, top = jsons.fields(row.get("capabilities")), row.get("top_provider")
    if capabilities.get("completion_chat") is False:
        return None
    modalities = jsons.fields(row.get("architecture")).get("input_modalities")
    parameters = row.get("supported_parameters")
    lengths = ("context_length", "context_window", "max_context_length", "max_model_len")
    return ModelInfo(
        model=model,
        name=str(row.get("name") or row.get("display_name") or model),
        context=next((size for name in lengths if (size := count(row, name))), None),
        max_output=count(top, "max_completion_tokens")
        or count(row, "max_completion_tokens")
        or None,
        vision=_among("image", modalities, capabilities.get("vision")),
        tools=_among("tools", parameters, capabilities.get("function_calling")),
        reasoning=_among("reasoning", parameters, capabilities.get("reasoning")),
    )


def _among(word: str, words: JsonValue, otherwise: JsonValue) -> bool | None:
    if isinstance(words, list):
        return word in words
    return otherwise if isinstance(otherwise, bool) else None
