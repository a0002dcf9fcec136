"""Settings as others may see them: keys, headers, environment values and URL queries hidden."""

import json
import re
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from sidecar.messages import JsonObject
from sidecar.settings.layers import Steps, dotted
from sidecar.visible import visible

MASKED: JsonValue = {"masked": True}
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_SECRET_FLAG = re.compile(r"(--?[\w-]*(?:key|token|secret|password)[\w-]*)(=.*)?", re.I | re.S)


def masked(settings: JsonObject, references: Mapping[Steps, str]) -> JsonObject:
    """A secret becomes `{"masked": true}`; what had a `${NAME}` is shown as written."""
    return {name: _masked(value, (name,), references) for name, value in settings.items()}


def shown(settings: JsonObject, sources: Mapping[str, str], above: Steps = ()) -> Iterator[str]:
    """Lines of YAML, each value with its source in a comment."""
    indent = "  " * len(above)
    for name, value in settings.items():
        path = (*above, name)
        key = name if _PLAIN_NAME.fullmatch(name) else _printable(name)
        if isinstance(value, dict) and value and value != MASKED:
            yield f"{indent}{key}:"
            yield from shown(value, sources, path)
        else:
            yield f"{indent}{key}: {_printable(value)}  # {sources.get(dotted(path), 'default')}"


def _masked(value: JsonValue, path: Steps, references: Mapping[Steps, str]) -> JsonValue:
    match path:
        case ("providers", _, "api_key") if value is not None:
            return MASKED
        case ("providers", _, "headers", _) | ("mcp", "servers", _, "headers" | "env", _):
            return MASKED
        case ("mcp", "servers", _, "args") if isinstance(value, list):
            return _masked_arguments(value, path, references)
    if isinstance(value, dict):
        return {name: _masked(item, (*path, name), references) for name, item in value.items()}
    if isinstance(value, str):
        written = references.get(path, value)
        return _masked_url(written) if path[-1] in ("base_url", "url", "proxy") else written
    return value


def _masked_arguments(
    arguments: list[JsonValue], path: Steps, references: Mapping[Steps, str]
) -> list[JsonValue]:
    shown: list[JsonValue] = []
    follows_flag = False
    for index, argument in enumerate(arguments):
        written = references.get((*path, str(index)), str(argument))
        flag = _SECRET_FLAG.fullmatch(written)
        if follows_flag and not written.startswith("-"):
            shown.append(MASKED)
        elif flag and flag[2]:
            shown.append(f"{flag[1]}=[masked]")
        else:
            shown.append(_masked_url(written))
        follows_flag = flag is not None and not flag[2]
    return shown


def _masked_url(url: str) -> str:
    address, question, _ = url.partition("?")
    scheme, slashes, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        authority = f"[masked]@{authority.rpartition('@')[2]}"
    query = "?[masked]" if question and slashes else url[len(address) :]
    return f"{scheme}{slashes}{authority}{slash}{path}{query}"


def _printable(value: JsonValue) -> str:
    """JSON, which is YAML too."""
    return visible(json.dumps(value, ensure_ascii=False))
