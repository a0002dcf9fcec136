"""What a turn promises where no vendor that we speak to can show it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from sidecar.chat.approvals import Approvals, Asking
from sidecar.chat.base import OnProgress
from sidecar.chat.draft import Draft
from sidecar.chat.turn import Plan, Turn
from sidecar.messages import JsonObject, Tool, ToolResultPart
from sidecar.protocol.chunks import Chunk, ToolResultChunk
from sidecar.providers.base import ModelEvent, ModelInfo, ModelRequest, Params, ToolCall
from sidecar.store.attachments import Attachments
from sidecar.store.rules import Rules


class NoTools:
    """A ToolSource without tools."""

    def tools(self) -> Sequence[Tool]:
        return ()

    def starting(self) -> Sequence[str]:
        return ()

    async def settled(self) -> None: ...

    async def check(self, tool: Tool, arguments: JsonObject) -> None: ...

    async def call(
        self, tool: Tool, arguments: JsonObject, tool_call_id: str, on_progress: OnProgress
    ) -> ToolResultPart:
        raise AssertionError("there is no tool to call")


class CallsAndGoesOn:
    """A Provider that makes a call early and never comes to its end."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def about(self, model: str) -> ModelInfo:
        return ModelInfo(model, model)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        yield ToolCall("c1", "anything", {}, "{}")
        self.called.set()
        await asyncio.Event().wait()

    async def models(self) -> Sequence[ModelInfo]:
        return ()

    async def prepare(self) -> None: ...

    async def close(self) -> None: ...


async def unknown() -> None:
    """The window of a model that nobody knows."""


async def test_a_call_that_was_shown_is_answered_even_if_the_model_is_cut_off_after_it() -> None:
    source, provider = NoTools(), CallsAndGoesOn()
    approvals = Approvals(rules=Rules(None), tools=source, timeout_s=1, publish=lambda event: None)
    plan = Plan(
        provider=provider,
        model="m",
        history=(),
        system_prompt=None,
        params=Params(),
        asking=Asking(run_id="r", conversation_id="c"),
        servers=None,
        max_steps=2,
        window=unknown,
    )
    shown: list[Chunk] = []
    turn = Turn(plan, Draft("m1", "q1", "p/m"), source, approvals, Attachments(None))

    running = asyncio.create_task(turn.run(shown.append))
    async with asyncio.timeout(5):
        await provider.called.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    [result] = [chunk for chunk in shown if isinstance(chunk, ToolResultChunk)]
    assert result.metadata.status == "cancelled"
    kinds = [part.type for part in turn.draft.message("cancelled").parts]
    assert kinds == ["tool_call", "tool_result"]
