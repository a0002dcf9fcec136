"""YAML text in, values out that know the line they stand on.

Composes and never constructs, so that no tag can make an object. Plain words mean what YAML 1.2
says: `no` is a text and a date is a text. Knows the file format and no setting.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from sidecar.errors import ConfigInvalid

MAX_BYTES = 1024 * 1024  # a settings file is a few kB; what is larger was named by mistake
MAX_DEPTH = 32  # libyaml's composer recurses in C: deeper nesting would end the process
MAX_VALUES = 20_000  # aliases of aliases multiply

Scalar: TypeAlias = str | int | float | bool | None

_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAG = "tag:yaml.org,2002:str"
_TAGS = {_TEXT_TAG} | {  # what the composer itself gives; the last three are YAML 1.1's
    f"tag:yaml.org,2002:{name}"
    for name in ("int", "float", "bool", "null", "map", "seq", "timestamp", "merge", "value")
}
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    ".nan": float("nan"),
    ".inf": float("inf"),
    "-.inf": float("-inf"),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written. `source` is `default`, `file PATH`, `environment NAME`, `flag`."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        kind, _, name = self.source.partition(" ")
        match kind:
            case "file":
                return f"{name}, line {self.line}" if self.line else name
            case "environment":
                return f"environment variable {name}"
            case "flag":
                return "command line"
        return f"shipped settings, line {self.line}" if self.line else "settings"


@dataclass(frozen=True, slots=True)
class Node:
    """A value where it was written.

    `text` is what a scalar reads when a text is wanted, for values whose writer could not quote
    them; `reference` is the text before its `${NAME}` were replaced; `written` is a scalar as the
    file has it, where that is known: 1.10 is not 1.1 to whoever meant a version.
    """

    value: "Scalar | dict[str, Node] | list[Node]"
    origin: Origin
    text: str | None = None
    reference: str | None = None
    written: str | None = None


def load(path: Path, source: str) -> dict[str, Node]:
    """Read a file. Raises ConfigInvalid with file and line; what it says quotes no value."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigInvalid(f"{path} has {size} bytes; settings have at most {MAX_BYTES}.")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be read: {error.strerror or error}.") from error
    return parse(_decoded(data, path), source)


def parse(text: str, source: str) -> dict[str, Node]:
    """Read settings from a text; an empty one has none. Raises ConfigInvalid."""
    try:
        _check_depth(text, source)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise ConfigInvalid(_syntax(error, text, source)) from error
    if root is None or (isinstance(root, yaml.ScalarNode) and resolve(root.value) is None):
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigInvalid(f"{_at(root, source)}: settings are written as `section: ...`.")
    return _Reader(source).map(root, depth=0)


def resolve(text: str) -> Scalar:
    """What an unquoted text means."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 20 else text  # no setting has such a number
    return float(text) if _NUMBER.fullmatch(text) else text


def _decoded(data: bytes, path: Path) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigInvalid(
            f"{path}, line {line}: this is not UTF-8 text. Save the file as UTF-8."
        ) from error
    if "\0" in text:
        raise ConfigInvalid(f"{path} is not a text file.")
    return text


def _check_depth(text: str, source: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else None
                raise ConfigInvalid(f"{Origin(source, line)}: nested deeper than any setting.")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax(error: yaml.YAMLError, text: str, source: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{Origin(source)}: this is not YAML; look for control characters."
    lines = text.splitlines()
    index = min(error.problem_mark.line, len(lines) - 1)  # the end of the file is on no line
    written, origin = lines[index], Origin(source, index + 1)
    if re.match(r"\s*\t", written):
        return f"{origin}: indent with spaces; YAML does not take a tab there."
    problem = " ".join(filter(None, (error.context, error.problem)))
    hint = ' Put a value with ":", "#", "*" or "{" into quotes.' if ":" in written else ""
    return f"{origin}: {problem}.{hint}"


def _at(node: yaml.Node, source: str) -> str:
    return str(Origin(source, node.start_mark.line + 1))


class _Reader:
    """Composed nodes to ours; counts what it makes, since an alias may stand for many."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._count = 0

    def map(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, value in node.value:
            at = _at(key, self._source)
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigInvalid(f"{at}: the name of a setting must be a text.")
            if key.value in entries:
                first = entries[key.value].origin.line
                raise ConfigInvalid(f"{at}: {key.value} stands already on line {first}.")
            entries[key.value] = self.node(value, key.start_mark.line + 1, depth + 1)
        return entries

    def node(self, node: yaml.Node, line: int, depth: int) -> Node:
        """`line` is that of the name before a value, which is where a person looks for it."""
        origin = Origin(self._source, line)
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            raise ConfigInvalid(f"{origin}: an alias (*name) stands for more than any setting has.")
        if node.tag not in _TAGS:
            raise ConfigInvalid(f"{origin}: a tag such as {node.tag} has no meaning here.")
        if isinstance(node, yaml.MappingNode):
            return Node(self.map(node, depth), origin)
        if isinstance(node, yaml.SequenceNode):
            items = [self.node(item, item.start_mark.line + 1, depth + 1) for item in node.value]
            return Node(items, origin)
        quoted = node.tag == _TEXT_TAG or (isinstance(node, yaml.ScalarNode) and node.style)
        value = node.value if quoted else resolve(node.value)
        return Node(value, origin, written=node.value)
