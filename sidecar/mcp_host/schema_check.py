"""What a person wrote, against the JSON Schema of a server: arguments of a call, a form."""

from functools import partial
from typing import TYPE_CHECKING

from pydantic import JsonValue

from sidecar.errors import BadRequest
from sidecar.mcp_host.catalogue import cut
from sidecar.messages import JsonObject
from sidecar.threads import load_modules, run_in_thread

if TYPE_CHECKING:
    from jsonschema import ValidationError

FIELD_BYTES = 500  # of what is said about one


async def check(schema: JsonObject, value: JsonObject, what: str) -> None:
    """Raises BadRequest with the first field of `what` that is wrong."""
    await load_modules("jsonschema", "referencing")
    problem = await run_in_thread(partial(_first_problem, schema, value, what), f"check {what}")
    if problem is not None:
        raise BadRequest(
            f"{what}{problem.json_path.removeprefix('$')}: {cut(problem.message, FIELD_BYTES)}"
        )


async def check_form(schema: JsonObject, content: JsonObject) -> None:
    """Raises BadRequest with the first field that is wrong."""
    await check(schema, content, "content")


def _first_problem(schema: JsonObject, value: JsonObject, what: str) -> "ValidationError | None":
    from jsonschema.exceptions import best_match
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    schema = _without_patterns(schema)
    kind = validator_for(schema, default=Draft202012Validator)
    # an empty registry: a `$ref` to somewhere else is never fetched
    validator = kind(schema, registry=Registry())
    try:
        problem: ValidationError | None = best_match(validator.iter_errors(value))
    except (Unresolvable, RecursionError) as error:
        raise BadRequest(
            f"The {what} cannot be checked against the server's schema: {error}. Allow the call "
            "as it is, or deny it."
        ) from error
    return problem


def _without_patterns(schema: JsonObject) -> JsonObject:
    """What is left to check; a server's pattern may take for ever, and stops every thread.

    Wherever they stand, since a `$ref` can make a schema of anything. A property of such a name
    stays: its schema is no string, as a pattern is.
    """
    dropped = set()
    if isinstance(schema.get("pattern"), str):
        dropped = {"pattern"}
    if "patternProperties" in schema:  # without it, nobody knows which properties are additional
        dropped |= {"patternProperties", "additionalProperties", "unevaluatedProperties"}
    return {name: _stripped(value) for name, value in schema.items() if name not in dropped}


def _stripped(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return _without_patterns(value)
    return [_stripped(item) for item in value] if isinstance(value, list) else value
