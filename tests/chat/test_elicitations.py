"""What servers ask of a person, however much it is."""

import asyncio

from sidecar.chat.elicitations import Elicitations
from sidecar.mcp_host.asking import Question, Reply
from sidecar.messages import JsonObject
from sidecar.protocol.base import FRAME_BYTES_OUT
from sidecar.protocol.elicitations import ElicitationsPending
from sidecar.protocol.events import Event
from sidecar.protocol.program import Pending


async def fits(schema: JsonObject, content: JsonObject) -> None:
    """Whatever it is."""


async def test_open_questions_never_outgrow_a_frame_together() -> None:
    asked: list[Event] = []
    elicitations = Elicitations(timeout_s=60, check=fits, publish=asked.append)
    elicitations.questions.join("window")
    title = "\u202e" * 100  # each stands as seven bytes
    fields: JsonObject = {f"f{n}": {"type": "string", "title": title} for n in range(60)}
    question = Question("s", "Who?", schema={"type": "object", "properties": fields})

    asking = [asyncio.create_task(elicitations.ask(question)) for _ in range(20)]
    done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)

    assert {task.result() for task in done} == {Reply("cancel")}
    assert len(waiting) == len(elicitations.pending()) == len(asked) > 1
    assert isinstance(asked[0], ElicitationsPending)
    greeting = Pending(approvals=(), elicitations=elicitations.pending())
    assert len(greeting.model_dump_json(by_alias=True).encode()) < FRAME_BYTES_OUT // 2
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert elicitations.pending() == ()
