"""Changes to the settings file a person wrote: their comments, order and quotes stay.

Text in, text out. Values are literal: a `${` in one of them is written so that it stays one.
"""

import io
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from pydantic import JsonValue

from sidecar.errors import ConfigInvalid

Change = Callable[[MutableMapping[str, Any]], None]
WIDTH = 100_000  # a long argument stays on its line


def edited(text: str, change: Change) -> str:
    """The file after `change` has been made to its top-level map. Raises ConfigInvalid."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import YAMLError

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    try:
        top = yaml.load(text)
    except YAMLError as error:
        raise ConfigInvalid(f"The settings file cannot be read: {error}") from error
    if top is None:  # nothing but comments, which the empty map that is written would lose
        top, heading = CommentedMap(), text
    else:
        heading = ""
    if not isinstance(top, CommentedMap):
        raise ConfigInvalid("The settings file is not a map of keys and values.")
    change(top)
    written = io.StringIO()
    if top:
        yaml.dump(top, written)
    return heading + ("\n" if heading and not heading.endswith("\n") else "") + written.getvalue()


def inside(top: MutableMapping[str, Any], *path: str) -> MutableMapping[str, Any]:
    """The map at this place, made where it is missing."""
    from ruamel.yaml.comments import CommentedMap

    at = top
    for name in path:
        if not isinstance(at.get(name), MutableMapping):
            at[name] = CommentedMap()
        at = at[name]
    return at


def literal(value: JsonValue) -> Any:
    """As it is written, so that it is read as the same value."""
    match value:
        case str():
            return value.replace("${", "$${")
        case Mapping():
            return {name: literal(each) for name, each in value.items()}
        case Sequence():
            return [literal(each) for each in value]
        case _:
            return value
