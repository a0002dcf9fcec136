"""Settings as others may see them: keys, headers, environment values and URL queries hidden."""

import json
import re
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from sidecar.messages import JsonObject
from sidecar.redaction import redact
from sidecar.settings.layers import Steps, dotted
from sidecar.visible import visible

MASKED: JsonValue = {"masked": True}
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_SECRET_WORD = r"(?:key|token|secret|passw|credential|cookie|auth)"
_SECRET_FLAG = re.compile(rf"(--?[\w-]*{_SECRET_WORD}[\w-]*)(=.*)?", re.I | re.S)
# What follows is a header or a variable: curl's, docker's, mcp-remote's.
_PAIR_FLAG = re.compile(r"(-H|-e|--headers?|--env)(?:=(.*))?", re.S)
_PAIR = re.compile(r"([\w.-]+)(=|:\s*)(.+)", re.S)
_SECRET_PAIR = re.compile(rf"([\w.-]*{_SECRET_WORD}[\w.-]*)(=|:\s+)(.+)", re.I | re.S)


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
        case ("mcp", "servers", _, "oauth", "client_secret") if value is not None:
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
    before = ""
    for index, argument in enumerate(arguments):
        written = references.get((*path, str(index)), str(argument))
        is_flag = written.startswith("-")
        if not is_flag and _SECRET_FLAG.fullmatch(before) and "=" not in before:
            shown.append(MASKED)
        elif not is_flag and _PAIR_FLAG.fullmatch(before):
            shown.append(_masked_pair(_PAIR, written))
        else:
            shown.append(_masked_argument(written))
        before = written
    return shown


def _masked_argument(written: str) -> str:
    if (flag := _SECRET_FLAG.fullmatch(written)) and flag[2]:
        return f"{flag[1]}=[masked]"
    if (flag := _PAIR_FLAG.fullmatch(written)) and flag[2]:
        return f"{flag[1]}={_masked_pair(_PAIR, flag[2])}"
    return redact(_masked_url(_masked_pair(_SECRET_PAIR, written)))


def _masked_pair(pattern: re.Pattern[str], text: str) -> str:
    """`NAME=value` or `Name: value` without the value; any other text, such as `NAME`, as it is."""
    pair = pattern.fullmatch(text)
    return f"{pair[1]}{pair[2]}[masked]" if pair else redact(text)


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
