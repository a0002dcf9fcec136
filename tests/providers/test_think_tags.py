"""Reasoning in the text of an answer is told as reasoning, and text as text."""

import random
from itertools import pairwise

import pytest

from sidecar.providers.base import ReasoningDelta, TextDelta
from sidecar.providers.dialects.think_tags import ThinkTags

# written by a server → the reasoning and the text in it
ANSWERS = {
    "<think>Hm.</think>Yes.": ("Hm.", "Yes."),
    "\n <think>\n\nHm.\nWell.\n</think>\n\nYes.\n": ("Hm.\nWell.\n", "Yes.\n"),
    "<think>\n\n</think>\n\nYes.": ("", "Yes."),
    "<think></think>Yes.": ("", "Yes."),
    "<think>Hm.</think>": ("Hm.", ""),
    "<think>I was cut </thi": ("I was cut </thi", ""),
    "<think>1 < 2 </ think> <</think>Yes.": ("1 < 2 </ think> <", "Yes."),
    "<think>Hm.</think>The tags are <think> and </think>.": (
        "Hm.",
        "The tags are <think> and </think>.",
    ),
    "The tags are <think> and </think>.": ("", "The tags are <think> and </think>."),
    "`<think>` begins it.": ("", "`<think>` begins it."),
    "<thinking>no tag</thinking>": ("", "<thinking>no tag</thinking>"),
    "<thi": ("", "<thi"),
    "  \n": ("", "  \n"),
    "\n\nYes.": ("", "\n\nYes."),
    "": ("", ""),
}


def told(*pieces: str) -> list[TextDelta | ReasoningDelta]:
    tags = ThinkTags()
    return [*(event for piece in pieces for event in tags.read(piece)), *tags.end()]


def split(*pieces: str) -> tuple[str, str]:
    events = told(*pieces)
    assert all(event.text for event in events), "an empty piece says nothing"
    reasoning = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    return reasoning, "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize("written", ANSWERS)
def test_an_answer_means_the_same_however_its_tags_are_cut(written: str) -> None:
    chance = random.Random(1)

    assert split(written) == ANSWERS[written]
    assert split(*written) == ANSWERS[written]
    for _ in range(200):
        places = sorted(chance.choices(range(len(written) + 1), k=chance.randrange(6)))
        cuts = [0, *places, len(written)]
        assert split(*(written[a:b] for a, b in pairwise(cuts))) == ANSWERS[written]


def test_nothing_is_held_back_that_can_be_no_tag() -> None:
    tags = ThinkTags()

    assert list(tags.read("<think>I ")) == [ReasoningDelta("I ")]
    assert list(tags.read("see </")) == [ReasoningDelta("see ")]
    assert list(tags.read("b")) == [ReasoningDelta("</b")]
    assert list(tags.read("</think>")) == []
    assert list(tags.read("Yes <")) == [TextDelta("Yes <")]


def test_reasoning_comes_before_the_text_that_came_in_the_same_piece() -> None:
    assert told("<think>Hm.</think>Yes.") == [ReasoningDelta("Hm."), TextDelta("Yes.")]
