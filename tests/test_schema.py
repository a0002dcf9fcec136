"""The protocol as others read it: complete, true to the wire, the same everywhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sidecar import errors, schema
from sidecar.messages import ErrorInfo, Hints, JsonObject, Message, TextPart, Usage
from sidecar.protocol.approvals import Approval, ApprovalsPending
from sidecar.protocol.base import NoMetadata
from sidecar.protocol.chat import ChatResult
from sidecar.protocol.chunks import (
    SnapshotChunk,
    SnapshotMetadata,
    TextChunk,
    ToolResultChunk,
    ToolResultMetadata,
)
from sidecar.protocol.frames import ChunkFrame, CompleteFrame, ErrorFrame, EventFrame, Frame, encode
from sidecar.protocol.program import Limits
from sidecar.protocol.requests import CAPABILITIES, RequestProblem, parse_request

GOLDEN = Path(__file__).with_name("protocol.schema.json")
WEB = Path(__file__).parents[1] / "sidecar" / "web"
TSC = os.environ.get("SIDECAR_TEST_TSC")

MESSAGE = Message(
    message_id="m1",
    parent_id=None,
    role="user",
    parts=(TextPart(text="Hi"),),
    created_at="2026-01-01T00:00:00Z",
)
APPROVAL = Approval(
    approval_id="ap1",
    run_id=None,
    conversation_id=None,
    tool_call_id="t1",
    server="files",
    name="read_file",
    description="Reads a file.",
    arguments={"path": "a.txt"},
    hints=Hints(read_only=True),
    expires_at="2026-01-01T00:10:00Z",
)
FRAMES = [
    ChunkFrame(request_id="a", seq=1, chunk=TextChunk(data="Hel", metadata=NoMetadata())),
    ChunkFrame(
        request_id="a",
        seq=3,
        chunk=ToolResultChunk(
            data="12:00",
            metadata=ToolResultMetadata(
                tool_call_id="t1", status="ok", duration_ms=3, structured_content={"time": [12, 0]}
            ),
        ),
    ),
    ChunkFrame(
        request_id="a",
        seq_from=0,
        seq=9,
        chunk=SnapshotChunk(metadata=SnapshotMetadata(message=MESSAGE, seq=9)),
    ),
    CompleteFrame(
        request_id="a",
        seq=4,
        result=ChatResult(
            run_id="r",
            conversation_id="c",
            message_id="m",
            finish_reason="stop",
            usage=Usage(input=3, output=2),
        ),
    ),
    ErrorFrame(
        request_id=None,
        error="Not JSON.",
        error_info=ErrorInfo(code="invalid_json", retryable=False, origin="client"),
    ),
    EventFrame(event_seq=1, event=ApprovalsPending(data=APPROVAL)),
]


def validator(name: str) -> Any:
    bundle = schema.json_schema()
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": bundle["$defs"]})


def definition(name: str) -> Any:
    definitions: Any = schema.json_schema()["$defs"]
    return definitions[name]


def test_the_committed_schema_is_the_one_that_the_models_make() -> None:
    assert GOLDEN.read_text(encoding="utf-8") == schema.render("json"), (
        "The protocol changed. If that is meant: "
        "uv run sidecar schema --format json > tests/protocol.schema.json"
    )


@pytest.mark.parametrize("form", ["json", "typescript", "markdown"])
def test_a_program_without_docstrings_prints_the_same(form: schema.Format) -> None:
    script = f"import sys; from sidecar.schema import render; sys.stdout.write(render({form!r}))"

    frozen = subprocess.run(
        [sys.executable, "-OO", "-X", "utf8", "-c", script],
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert frozen.stdout.decode() == schema.render(form)


def test_the_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.json_schema())


def test_every_action_names_its_payload_and_its_result() -> None:
    bundle = schema.json_schema()
    actions, definitions = bundle["actions"], bundle["$defs"]

    assert isinstance(actions, dict) and isinstance(definitions, dict)
    assert tuple(actions) == CAPABILITIES
    for action in actions.values():
        assert isinstance(action, dict)
        for half in (action["payload"], action["result"]):
            assert isinstance(half, dict)
            assert str(half["$ref"]).removeprefix("#/$defs/") in definitions
    assert actions["resume"] == {
        "payload": {"$ref": "#/$defs/ResumePayload"},
        "result": {"$ref": "#/$defs/ChatResult"},
        "streams": True,
        "needs_hello": True,
    }


def test_error_codes_are_those_of_the_error_tree_once_each() -> None:
    codes = schema.json_schema()["error_codes"]

    assert isinstance(codes, dict)
    assert codes["quota_exhausted"] == {"origin": "provider"}
    assert codes["bad_host"] == {"origin": "client", "http_status": 421}
    assert {errors.ToolNotFound.code, errors.SidecarError.code} <= codes.keys()


def test_every_error_of_the_tree_is_raised_somewhere() -> None:
    package = Path(errors.__file__).parent
    elsewhere = "".join(
        file.read_text("utf-8") for file in package.rglob("*.py") if file.name != "errors.py"
    )
    names = [name for name, value in vars(errors).items() if isinstance(value, type)]

    assert len(names) > 30
    assert [name for name in names if not re.search(rf"\b{name}\b", elsewhere)] == []


def test_limits_and_close_codes_are_those_in_force() -> None:
    bundle = schema.json_schema()

    assert bundle["limits"] == Limits().model_dump()
    assert bundle["close_codes"] == {
        "1001": "The sidecar shuts down.",
        "1003": "A binary frame came.",
        "1009": "A frame was larger than `frame_bytes`.",
        "4001": "The page's session has ended: its code was used twice.",
        "4008": "The client read too slowly; its runs go on.",
    }


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_what_is_encoded_is_what_the_schema_says(frame: Frame) -> None:
    validator("Frame").validate(json.loads(encode(frame)))


def test_a_field_that_is_left_out_when_empty_is_optional_and_never_null() -> None:
    error_info = definition("ErrorInfo")

    assert "http_status" not in error_info["required"]
    assert error_info["properties"]["http_status"]["type"] == "integer"


def test_a_field_that_may_be_null_is_required() -> None:
    approval = definition("Approval")

    assert "run_id" in approval["required"]
    assert approval["properties"]["run_id"]["anyOf"] == [{"type": "string"}, {"type": "null"}]


def test_the_constants_that_tell_frames_apart_are_required() -> None:
    assert "status" in definition("ErrorFrame")["required"]
    assert "type" in definition("TextChunk")["required"]
    assert "action" in definition("Ping")["required"]


def test_a_client_that_validates_accepts_the_frames_of_a_later_server() -> None:
    frame = json.loads(encode(FRAMES[0])) | {"of_a_later_version": 1}

    validator("Frame").validate(frame)


@pytest.mark.parametrize(
    "request_frame",
    [
        {"action": "ping", "request_id": "1"},
        {"action": "chat", "request_id": "1", "payload": {"text": "Hi"}},
        {"action": "chat", "request_id": "1", "payload": {"text": "Hi", "model": None}},
        {"action": "chat", "request_id": "1", "payload": {"text": "Hi", "colour": "red"}},
        {"action": "chat", "request_id": "1", "payload": {"text": 1}},
        {"action": "chat", "request_id": "1", "payload": {"text": "Hi", "retry_key": "no uuid"}},
        {"action": "chat", "request_id": "", "payload": {"text": "Hi"}},
        {"action": "chat", "request_id": "1"},
        {"action": "mcp.servers.logs", "request_id": "1", "payload": {"server": "a", "limit": 0}},
        {"action": "sing", "request_id": "1", "payload": {}},
    ],
    ids=json.dumps,
)
def test_the_schema_accepts_the_requests_that_the_sidecar_accepts(
    request_frame: JsonObject,
) -> None:
    try:
        parse_request(json.dumps(request_frame))
        is_accepted = True
    except RequestProblem:
        is_accepted = False

    assert validator("Request").is_valid(request_frame) == is_accepted


def test_unions_have_names() -> None:
    assert definition("ChunkFrame")["properties"]["chunk"] == {"$ref": "#/$defs/Chunk"}
    assert definition("Message")["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}


def test_typescript_types_a_request_and_its_result() -> None:
    text = schema.typescript()

    assert '  "keys.set": KeysSetPayload;' in text
    assert '  "keys.set": KeysSetResult;' in text
    assert (
        "export interface KeysSetPayload {\n"
        "  provider: string;\n"
        "  key: string;\n"
        "  /** False: for this run of the sidecar only. */\n"
        "  persist?: boolean;\n"
        "}" in text
    )


def test_the_page_is_written_against_these_types() -> None:
    assert (WEB / "src" / "protocol.ts").read_text("utf-8") == schema.typescript(), (
        "uv run sidecar schema --format typescript > sidecar/web/src/protocol.ts"
    )


@pytest.mark.skipif(not TSC, reason="needs SIDECAR_TEST_TSC, the path of a TypeScript compiler")
@pytest.mark.skipif(
    not (WEB / "node_modules").exists(),
    reason="needs sidecar/web/node_modules, from `npm ci` there",
)
def test_the_page_has_no_mistake_that_its_types_show() -> None:
    assert TSC
    checked = subprocess.run([TSC, "--noEmit", "-p", WEB], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.skipif(not TSC, reason="needs SIDECAR_TEST_TSC, the path of a TypeScript compiler")
def test_a_typescript_client_compiles_against_the_types(tmp_path: Path) -> None:
    assert TSC
    (tmp_path / "protocol.ts").write_text(schema.typescript(), encoding="utf-8")
    (tmp_path / "client.ts").write_text(
        """\
import { PROTOCOL_VERSION } from "./protocol.js";
import type { Action, Chunk, Frame, Payloads, Request, Results } from "./protocol.js";

declare function ask<A extends Action>(action: A, payload: Payloads[A]): Promise<Results[A]>;

export async function tour(): Promise<string[]> {
  const hello = await ask("hello", { protocol: PROTOCOL_VERSION, events: ["*"] });
  const models = await ask("models.list", {});
  // @ts-expect-error a result has only its own fields
  void (await ask("ping", {})).models.length;
  return [hello.server.version, ...models.items.map((item) => item.model)];
}

export function shown(chunk: Chunk): string {
  switch (chunk.type) {
    case "text":
      return chunk.data;
    case "tool_result":
      return chunk.metadata.content?.map((it) => (it.type === "link" ? it.uri : "")).join() ?? "";
    default:
      return "";
  }
}

export function ending(frame: Frame): string | undefined {
  return frame.status === "error" ? frame.error_info.code : undefined;
}

export const right: Request = { action: "chat", request_id: "1", payload: { text: "Hi" } };
// @ts-expect-error there is no such field
export const wrong: Request = { action: "chat", request_id: "1", payload: { txt: "Hi" } };
""",
        encoding="utf-8",
    )

    compiled = subprocess.run(
        [TSC, "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "client.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert compiled.returncode == 0, compiled.stdout


def test_markdown_describes_every_chunk_and_event() -> None:
    tables = schema.tables()

    assert "| `usage` | Closes a step" in tables["Chunks"]
    assert "| `keys.delete` | `{provider}` | `{}` |" in tables["Actions"]
    for heading in ("Actions", "Chunks", "Events", "Types", "Fields"):
        assert "|  |" not in tables[heading]
        assert f"### {heading}\n\n| " in schema.markdown()
