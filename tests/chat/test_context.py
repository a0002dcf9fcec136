"""What a model is shown of a conversation that is too long for it."""

from sidecar.chat import context
from sidecar.messages import (
    Context,
    ImagePart,
    Message,
    Part,
    SummaryPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)


def person(text: str) -> Message:
    return said("user", TextPart(text=text))


def model(text: str, usage: Usage | None = None) -> Message:
    return said("assistant", TextPart(text=text), usage=usage)


def said(role: str, *parts: Part, usage: Usage | None = None) -> Message:
    return Message.model_validate(
        {
            "message_id": "m",
            "parent_id": None,
            "role": role,
            "parts": [part.model_dump() for part in parts],
            "usage": None if usage is None else usage.model_dump(),
            "created_at": "2026-01-01T00:00:00Z",
        }
    )


def test_without_a_summary_all_of_it_is_shown() -> None:
    history = (person("a"), model("b"), person("c"))

    assert context.effective(history) == history


def test_the_newest_summary_stands_for_everything_before_it() -> None:
    first = said("assistant", SummaryPart(text="about a"))
    second = said("assistant", SummaryPart(text="about a and c"))
    history = (person("a"), model("b"), first, person("c"), model("d"), second, person("e"))

    [question] = context.effective(history)

    assert question.role == "user"
    heading, asked = question.parts
    assert isinstance(heading, TextPart) and heading.text.endswith("about a and c")
    assert asked == TextPart(text="e")


def test_a_conversation_that_ends_with_its_summary_is_the_summary() -> None:
    [shown] = context.effective((person("a"), said("assistant", SummaryPart(text="about a"))))

    assert (shown.role, shown.text.endswith("about a")) == ("user", True)


def test_the_vendors_count_is_taken_and_the_rest_is_estimated() -> None:
    counted = model("b" * 3000, Usage(input=70, output=30, context=Context(used=100)))
    history = [person("a" * 9000), counted, person("c" * 300)]

    assert context.used_tokens(history, "prompt" * 100) == 100 + 100 + context.MESSAGE_TOKENS


def test_without_a_count_the_prompt_is_estimated_too() -> None:
    history = [person("a" * 300)]

    assert context.used_tokens(history, "p" * 30) == 100 + 10 + context.MESSAGE_TOKENS


def test_images_and_calls_take_room() -> None:
    image = ImagePart(attachment_id="x", mime="image/png")
    call = ToolCallPart(
        tool_call_id="1", server="s", name="t", offered_as="s__t", arguments={"a": "b" * 300}
    )

    assert context.estimate(said("user", image)) > context.ATTACHMENT_TOKENS
    assert context.estimate(said("assistant", call)) > 100


def test_whole_exchanges_are_left_out_oldest_first() -> None:
    call = ToolCallPart(tool_call_id="1", server="s", name="t", offered_as="s__t", arguments={})
    result = ToolResultPart(tool_call_id="1", status="ok", text="r" * 300, duration_ms=1)
    old = (person("a" * 300), said("assistant", call, result))
    new = (person("b" * 300), model("c" * 300), person("d" * 30))

    assert context.trimmed((*old, *new), 10_000) == (*old, *new)
    assert context.trimmed((*old, *new), 300) == new
    assert context.trimmed((*old, *new), 1) == new[-1:]


def test_the_last_exchange_stays_however_long_it_is() -> None:
    history = (person("a" * 30_000),)

    assert context.trimmed(history, 10) == context.halved(history) == history


def test_halving_comes_to_an_end() -> None:
    history: tuple[Message, ...] = tuple(
        message for number in range(9) for message in (person(f"{number}" * 90), model("x"))
    )
    lengths = []
    while len(shorter := tuple(context.halved(history))) < len(history):
        lengths.append(len(history := shorter))

    assert lengths[-1] == 2
    assert history[0].text == "8" * 90
