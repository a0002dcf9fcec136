"""One tool call: its result, its clock, its limits, and how it ends early."""

import asyncio
import hashlib
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import StorageFull
from sidecar.mcp_host.calls import bounded, run_call
from sidecar.mcp_host.clock import Clock, Ticking
from sidecar.messages import (
    Attachment,
    Hints,
    JsonObject,
    LinkContent,
    MediaContent,
    TextContent,
    Tool,
)
from sidecar.protocol.base import RESULT_BYTES
from tests.support.hosts import faulty, loop_watch, plain, running

if TYPE_CHECKING:
    from mcp_types import CallToolResult


def a_tool(name: str, input_schema: JsonObject | None = None) -> Tool:
    return Tool(
        name=f"s__{name}",
        server="s",
        server_name=name,
        description="",
        input_schema=input_schema or {"type": "object"},
        hints=Hints(),
        fingerprint="",
        digest="",
    )


def ignore(progress: float, total: float | None, message: str | None) -> None:
    pass


async def never(attachment: Attachment) -> str:
    raise AssertionError("there is nothing to save")


async def test_a_failed_call_is_a_result_that_the_model_can_read() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")

        result = await host.call("refuse")

    assert (result.status, result.text) == ("error", "No, thank you.")


async def test_media_and_links_are_told_by_name_and_size() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")

        result = await host.call("media")

    assert result.text.splitlines() == [
        "Look:",
        "[image: image/png, 5 bytes]",
        "[audio: audio/wav, 5 bytes]",
        "[link: page: https://example.com/page]",
        "a memo",
        "[file: application/zip, 5 bytes]",
    ]
    kept = hashlib.sha256(b"12345").hexdigest()
    assert result.content == (
        TextContent(text="Look:"),
        MediaContent(type="image", mime="image/png", bytes=5, attachment_id=kept),
        MediaContent(type="audio", mime="audio/wav", bytes=5, attachment_id=kept),
        LinkContent(uri="https://example.com/page", name="page"),
        MediaContent(type="file", mime="application/octet-stream", bytes=6),
        MediaContent(type="file", mime="application/zip", bytes=5, attachment_id=kept),
    )


async def test_the_bytes_of_media_are_kept() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")

        result = await host.call("media")

        ids = {block.attachment_id for block in result.content or () if block.type == "image"}
        [attachment_id] = ids
        assert attachment_id is not None
        assert (await host.attachments.load(attachment_id)).data == b"12345"


class Server:
    """What is asked of any: this one never goes away."""

    async def until_decided(self, timeout_s: float) -> None:
        raise AssertionError("it never went away")


class Painting(Server):
    """One whose tool gives an image, and one that is not base64."""

    async def call_tool(
        self, tool: Tool, arguments: JsonObject, ticking: Ticking
    ) -> "CallToolResult":
        from mcp_types import CallToolResult, ImageContent

        images = [
            ImageContent(type="image", mime_type="image/png", data=data)
            for data in ("MTIzNDU=", "\N{SNOWMAN}abc")
        ]
        return CallToolResult(content=[*images])


async def test_media_that_cannot_be_kept_are_told_all_the_same() -> None:
    async def full(attachment: Attachment) -> str:
        raise StorageFull("There is no room.")

    result = await run_call(Painting(), a_tool("paint"), {}, "1", ignore, Clock(), full)

    assert result.status == "ok"
    assert result.content == (
        MediaContent(type="image", mime="image/png", bytes=5),
        MediaContent(type="image", mime="image/png", bytes=3),
    )


async def test_a_result_without_text_is_read_from_its_structure() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")

        result = await host.call("structured")

    assert json.loads(result.text) == {"sum": 3}
    assert result.structured_content == {"sum": 3}


async def test_a_malformed_block_of_a_result_costs_only_itself() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")

        result = await host.call("malformed")

    assert result.status == "ok"
    assert result.text.splitlines() == [
        "before",
        "[a part of this result was left out: its type 'hologram' is unknown]",
        "[a part of this result was left out: it is no image in the form that MCP has for it]",
        "[a part of this result was left out: it has no type]",
        "[a part of this result was left out: it is no object]",
        "after",
    ]


async def test_an_invalid_result_is_an_error_that_names_the_field() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")

        result = await host.call("formless")

        assert result.status == "error"
        assert "content" in result.text
        assert host.status().state == "ready"


async def test_a_result_is_taken_as_it_is_whatever_its_schema_promised() -> None:
    async with running(s=faulty("EvilPattern")) as host:
        await host.state("ready")

        async with loop_watch() as longest_pause_s:
            result = await host.call("structured")

        assert (result.status, result.structured_content) == ("ok", {"sum": "a" * 25 + "!"})
        assert longest_pause_s() < 0.5  # seconds, if the pattern were tried
        output_schema = host.tool("structured").output_schema
        assert output_schema is not None
        assert output_schema["properties"] == {"sum": {"pattern": "^(a+)+$"}}


@pytest.mark.parametrize("code", [-32000, -32001, -32050])
async def test_a_servers_own_error_is_told_in_its_words_whatever_its_code(code: int) -> None:
    async with running(s=plain()) as host:
        await host.state("ready")

        result = await host.call("fail", code=code, message="Rate limit: try in 5 s")

    assert result.status == "error"
    assert result.text.endswith("answered with an error: Rate limit: try in 5 s")


async def test_a_huge_result_is_bounded_and_never_stops_the_loop() -> None:
    pauses_s = []
    async with running(s=plain()) as host:
        await host.state("ready")
        await host.call("structured")  # what the first call loads is not what is measured

        for _ in range(3):
            async with loop_watch() as longest_pause_s:
                result = await host.call("big", bytes=32 * 1024 * 1024)
            pauses_s.append(longest_pause_s())

    assert result.status == "ok"
    assert result.truncated
    assert len(result.text.encode()) <= RESULT_BYTES
    assert result.text.splitlines()[-1].endswith("more characters were left out]")
    assert min(pauses_s) < 0.1  # the least, since other programs pause us too


@pytest.mark.parametrize("text", ["x" * RESULT_BYTES, "é" * (RESULT_BYTES // 2), "😀"])
def test_a_text_within_the_limit_is_left_as_it_is(text: str) -> None:
    assert bounded(text) == (text, False)


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_a_text_over_the_limit_is_cut_between_characters(letter: str) -> None:
    length = RESULT_BYTES + 1

    kept, is_cut = bounded(letter * length)

    body, _, note = kept.rpartition("\n")
    assert is_cut
    assert RESULT_BYTES - 16 < len(kept.encode()) <= RESULT_BYTES
    assert set(body) == {letter}
    assert note == f"[… {length - len(body)} more characters were left out]"


# ---- what was allowed is what runs ----------------------------------------------------------


async def test_a_tool_that_changed_since_it_was_allowed_is_not_run() -> None:
    async with running(s=faulty("Changing")) as host:
        await host.state("ready")
        allowed = host.tool("echo")
        await host.call("grow")
        await host.until(lambda: len(host.tool_changes()) > 1)

        result = await host.host.call(allowed, {"text": "mine"}, "1", ignore)
        await host.call("echo", text="new")

        assert result.status == "error"
        assert (
            "The tool changed since this turn began; it can be called in the next one."
            in result.text
        )
        assert "echo mine" not in host.host.logs("s", 200)


async def test_a_tool_that_is_gone_or_started_otherwise_is_not_run() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")
        allowed = host.tool("echo")

        for change in ({"server_name": "gone"}, {"fingerprint": "another"}):
            result = await host.host.call(allowed.model_copy(update=change), {}, "1", ignore)

            assert "changed since" in result.text


# ---- cancel and time ------------------------------------------------------------------------


async def test_cancelling_a_call_reaches_the_server_and_returns_at_once() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")
        call = asyncio.create_task(host.call("hang"))
        request_id = (await host.said("hanging")).removeprefix("hanging ")

        call.cancel()
        async with asyncio.timeout(1):
            with pytest.raises(asyncio.CancelledError):
                await call

        assert await host.said("cancelled") == f"cancelled {request_id}"
        assert (await host.call("echo", text="next")).status == "ok"


async def test_a_call_over_its_time_is_cancelled_and_says_so() -> None:
    async with running(s=plain(call_timeout_s=0.2)) as host:
        await host.state("ready")

        result = await host.call("hang")

        assert result.status == "timeout"
        assert "0.2 s" in result.text
        await host.said("cancelled")


class Working(Server):
    """One whose tool reports progress every `step_s`, and ends after `steps`."""

    def __init__(self, steps: int, step_s: float) -> None:
        self.steps = steps
        self.step_s = step_s

    async def call_tool(
        self, tool: Tool, arguments: JsonObject, ticking: Ticking
    ) -> "CallToolResult":
        from mcp_types import CallToolResult

        for step in range(self.steps):
            await asyncio.sleep(self.step_s)
            ticking.progress(step, self.steps, None)
        return CallToolResult(content=[])


async def test_progress_resets_the_idle_clock_but_not_the_total() -> None:
    clock = Clock(idle_s=0.2, total_s=1.5)

    patient = await run_call(Working(5, 0.1), a_tool("work"), {}, "1", ignore, clock, never)
    silent = await run_call(Working(1, 5), a_tool("work"), {}, "2", ignore, clock, never)
    endless = await run_call(Working(1000, 0.1), a_tool("work"), {}, "3", ignore, clock, never)

    assert patient.status == "ok"
    assert patient.duration_ms > 400
    assert (silent.status, endless.status) == ("timeout", "timeout")
    assert "no sign of life for 0.2 s" in silent.text
    assert "within 1.5 s" in endless.text


class Asking(Server):
    """One whose tool takes `silent_s` while a person is asked, twice at once, and then `more_s`."""

    def __init__(self, silent_s: float, more_s: float) -> None:
        self.silent_s = silent_s
        self.more_s = more_s

    async def call_tool(
        self, tool: Tool, arguments: JsonObject, ticking: Ticking
    ) -> "CallToolResult":
        from mcp_types import CallToolResult

        with ticking.paused():
            with ticking.paused():
                pass
            ticking.progress(1, None, None)
            await asyncio.sleep(self.silent_s)
        await asyncio.sleep(self.more_s)
        return CallToolResult(content=[])


async def test_no_clock_runs_while_a_person_is_asked() -> None:
    clock = Clock(idle_s=0.2, total_s=0.3)

    slow_person = await run_call(Asking(0.5, 0.1), a_tool("ask"), {}, "1", ignore, clock, never)
    slow_server = await run_call(Asking(0.5, 5), a_tool("ask"), {}, "2", ignore, clock, never)

    assert slow_person.status == "ok"
    assert slow_server.status == "timeout"


class Chattering(Server):
    """One that tells much of its progress."""

    async def call_tool(
        self, tool: Tool, arguments: JsonObject, ticking: Ticking
    ) -> "CallToolResult":
        from mcp_types import CallToolResult

        self.ticking = ticking
        for step in range(1000):
            ticking.progress(step, None, f"step {step}")
        await self.told.wait()
        return CallToolResult(content=[])

    def __init__(self) -> None:
        self.told = asyncio.Event()


async def test_of_much_progress_the_first_and_the_newest_are_told_and_none_after_the_end() -> None:
    server, seen = Chattering(), list[str | None]()

    def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(message)
        if len(seen) == 2:
            server.told.set()

    await run_call(server, a_tool("chat"), {}, "1", note, Clock(), never)
    server.ticking.progress(1000, None, "late")

    assert seen == ["step 0", "step 999"]


async def test_progress_of_a_real_server_arrives_in_its_words() -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async with running(s=plain()) as host:
        await host.state("ready")
        async with asyncio.timeout(10):
            result = await host.host.call(
                host.tool("work"),
                {"steps": 3, "step_s": 0.2},
                "1",
                lambda *told: seen.append(told),
            )

    assert result.text == "worked"
    assert seen[0] == (0, 3, "step 0\\u202e")
    assert [told[0] for told in seen] == sorted(told[0] for told in seen)


# ---- the server goes away -------------------------------------------------------------------


async def test_a_server_killed_in_mid_call_leaves_the_outcome_unknown() -> None:
    async with running(s=plain()) as host:
        pid = (await host.state("ready")).pid
        assert pid is not None
        call = asyncio.create_task(host.call("hang"))
        await host.said("hanging")

        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(1):
            result = await call

        assert result.status == "unknown"
        assert "unknown" in result.text
        await host.state("backoff")
        await host.state("ready")
        assert len([line for line in host.host.logs("s", 200) if "hanging" in line]) == 1


async def test_a_restart_in_mid_call_leaves_the_outcome_unknown() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")
        call = asyncio.create_task(host.call("hang"))
        await host.said("hanging")

        await host.host.restart("s")

        assert (await call).status == "unknown"


async def test_a_last_answer_counts_though_its_server_is_gone() -> None:
    async with running(s=faulty("AnswersAndExits")) as host:
        await host.state("ready")

        assert (await host.call("die")).text == "my last words"


async def test_a_call_is_finished_by_a_server_that_takes_no_other() -> None:
    async with running(s=faulty("ClosesInput")) as host:
        pid = (await host.state("ready")).pid

        result = await host.call("echo")
        await host.state("backoff")

        assert (result.status, result.text) == ("ok", "late but right")
        assert (await host.state("ready")).pid != pid


async def test_a_call_of_a_server_that_is_down_was_surely_not_made() -> None:
    async with running(s=faulty("ExitsAtOnce")) as host:
        await host.state("backoff")
        async with asyncio.timeout(20):
            result = await host.host.call(a_tool("echo"), {}, "1", ignore)

    assert result.status == "error"
    assert result.text.startswith("The call was not made.")
    assert "exited with code 3" in result.text


async def test_a_call_of_a_server_that_is_not_configured_is_an_error() -> None:
    async with running() as host:
        result = await host.host.call(a_tool("echo"), {}, "1", ignore)

    assert result.status == "error"


async def test_at_most_eight_calls_of_a_server_run_at_once() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")
        calls = [asyncio.create_task(host.call("hang")) for _ in range(9)]
        echo = asyncio.create_task(host.call("echo", text="mine"))
        await host.said("hanging", times=8)

        for call in calls:
            call.cancel()
        async with asyncio.timeout(5):
            await echo

        heard = host.host.logs("s", 200)
        assert sum(line.startswith("hanging") for line in heard) == 8
        assert heard.index("echo mine") > 8
