"""Layers of settings, merged against a model: later wins, and every value keeps its place.

Maps merge, lists replace, null takes an entry out of a map whose names the person chose. What is
wrong is said in a person's words, with the place, and never with the value, which may be a key.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeAlias, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sidecar.errors import ConfigInvalid
from sidecar.settings.nodes import Node, Origin

M = TypeVar("M", bound=BaseModel)
Steps: TypeAlias = tuple[str, ...]
_Tree: TypeAlias = dict[str, Any]


class Layers(Generic[M]):
    """The layers merged so far, and of each value its place."""

    def __init__(self, model: type[M]) -> None:
        self._model = model
        self.tree: _Tree = {}
        self.references: dict[Steps, str] = {}
        self._origins: dict[Steps, Origin] = {}
        self._texts: dict[Steps, str] = {}

    def add(self, layer: Mapping[str, Node]) -> None:
        self._merge(self.tree, layer, ())

    def origin(self, path: Steps) -> Origin:
        """Where the value was written, or the nearest map around it."""
        while path and path not in self._origins:
            path = path[:-1]
        return self._origins.get(path, Origin("default"))

    def sources(self) -> dict[str, str]:
        return {dotted(path): self.origin(path).source for path in _leaves(self.tree, ())}

    def validated(self) -> M:
        while True:
            try:
                # As JSON: a list may become a tuple, but strictly no text a number.
                return self._model.model_validate_json(json.dumps(self.tree), strict=True)
            except ValidationError as error:
                problems = error.errors(include_url=False)
                if not self._read_as_text(problems):
                    raise ConfigInvalid(self._sentence(problems)) from None

    def _merge(self, into: _Tree, layer: Mapping[str, Node], above: Steps) -> None:
        for name, node in layer.items():
            path = (*above, name)
            if isinstance(node.value, dict):
                if not isinstance(into.get(name), dict):
                    self._forget(path)
                    into[name] = {}
                self._origins[path] = node.origin
                self._merge(into[name], node.value, path)
            elif node.value is None and get_origin(_type_at(self._model, above)) is dict:
                self._forget(path)
                into.pop(name, None)
            elif not _is_map(_type_at(self._model, path)):
                self._forget(path)
                into[name] = self._plain(node, path)
            elif node.value is not None:  # null: a section whose every line is commented out
                raise ConfigInvalid(f"{node.origin}: {_mismatch(path, 'dict_type', node.value)}")

    def _plain(self, node: Node, path: Steps) -> Any:
        self._origins[path] = node.origin
        if isinstance(node.value, str) and not _is_unicode(node.value):
            raise ConfigInvalid(f"{node.origin}: {dotted(path)} is not valid Unicode.")
        if node.text is not None:
            self._texts[path] = node.text
        if node.reference is not None:
            self.references[path] = node.reference
        if isinstance(node.value, list):
            return [self._plain(item, (*path, str(i))) for i, item in enumerate(node.value)]
        if isinstance(node.value, dict):
            return {name: self._plain(item, (*path, name)) for name, item in node.value.items()}
        return node.value

    def _forget(self, path: Steps) -> None:
        for known in [known for known in self._origins if known[: len(path)] == path]:
            del self._origins[known]
            self._texts.pop(known, None)
            self.references.pop(known, None)

    def _read_as_text(self, problems: Iterable[ErrorDetails]) -> bool:
        """Where a text is wanted and a variable gave `1.5`, take it as the text it was."""
        wanted = [_steps(problem) for problem in problems if problem["type"] == "string_type"]
        texts = [(path, self._texts.pop(path)) for path in wanted if path in self._texts]
        for path, text in texts:
            parent: Any = self.tree
            for step in path[:-1]:
                parent = parent[int(step) if isinstance(parent, list) else step]
            parent[int(path[-1]) if isinstance(parent, list) else path[-1]] = text
        return bool(texts)

    def _sentence(self, problems: list[ErrorDetails]) -> str:
        first = min(problems, key=lambda problem: _RANK.get(problem["type"], 1))
        path = _steps(first)
        more = f" (And {len(problems) - 1} more.)" if len(problems) > 1 else ""
        return f"{self.origin(path)}: {_complaint(self._model, first, path)}{more}"


def dotted(path: Steps) -> str:
    return ".".join(path)


def _steps(problem: ErrorDetails) -> Steps:
    return tuple(str(step) for step in problem["loc"] if step != "[key]")


def _is_unicode(text: str) -> bool:
    """False for what the environment holds in another encoding, and for halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _leaves(tree: _Tree, above: Steps) -> Iterator[Steps]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)


def _type_at(model: type[BaseModel], path: Steps) -> Any:
    """The type that the models have at a path; None where they have nothing."""
    found: Any = model
    for step in path:
        if get_origin(found) is dict:
            found = get_args(found)[1]
        elif _is_section(found) and step in found.model_fields:
            found = found.model_fields[step].annotation
        else:
            return None
    return found


def _is_section(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseModel)


def _is_map(found: Any) -> bool:
    return _is_section(found) or get_origin(found) is dict


_RANK = {"extra_forbidden": 0, "missing": 2}  # a misspelt name is why another is missing
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list, such as [first, second],",
    "dict_type": "a map of keys and values",
    "model_type": "a map of keys and values",
}
_YAML_1_1_WORDS = {
    **dict.fromkeys(("yes", "on", "y"), "true"),
    **dict.fromkeys(("no", "off", "n"), "false"),
}


def _complaint(model: type[BaseModel], problem: ErrorDetails, path: Steps) -> str:
    name, kind, context = dotted(path), problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{name} is not a setting{_nearest_setting(model, path)}"
    if kind == "missing":
        return f"{name} is missing."
    if kind == "value_error":
        return f"{name}: {context['error']}."
    if kind == "literal_error":
        return f"{name} must be {context['expected'].replace(chr(39), '')}."
    if kind == "string_pattern_mismatch":
        return f"{path[-1]!r} cannot be a name: use up to 64 letters, digits, '-', '_' and '.'."
    if kind in _EXPECTED:
        return _mismatch(path, kind, problem["input"])
    return f"{name}: {problem['msg'].removeprefix('Input ')}."


def _mismatch(path: Steps, kind: str, value: object) -> str:
    wanted = f"{_EXPECTED[kind]} is expected, and this is {_read_as(value)}."
    return f"{dotted(path)}: {wanted}{_hint(kind, value)}"


def _read_as(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
    return "a map"


def _hint(kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, bool | int | float):
        return " Put it into quotes."
    if kind == "bool_type" and str(value).lower() in _YAML_1_1_WORDS:
        return f" Write {_YAML_1_1_WORDS[str(value).lower()]}."
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return " Write it without quotes."
    return ""


def _nearest_setting(model: type[BaseModel], path: Steps) -> str:
    """A name of the same section, or the same name in another section."""
    name, around = path[-1], _type_at(model, path[:-1])
    for section, info in model.model_fields.items() if len(path) <= 2 else ():
        if name in _names(info.annotation):
            return f"; did you mean {section}.{name}?"
    return nearest(name, _names(around), dotted(path[:-1]))


def _names(section: Any) -> Iterable[str]:
    return section.model_fields if _is_section(section) else ()


def nearest(name: str, names: Iterable[str], above: str = "") -> str:
    import difflib  # 5 ms, and only a mistake needs it

    known = list(names)
    prefix = f"{above}." if above else ""
    for near in difflib.get_close_matches(name.lower(), known, 1, 0.6):
        return f"; did you mean {prefix}{near}?"
    return f"; there are: {', '.join(known)}."
