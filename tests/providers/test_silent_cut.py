"""A person is told when a server has read less than it was sent, and only then."""

from collections.abc import Sequence

import pytest

from sidecar.messages import JsonObject, Usage
from sidecar.providers.dialects.silent_cut import notice_of_cut

ENGLISH = "It was the best of times, it was the worst of times. "


def codes(usage: Usage | None, *texts: str) -> Sequence[str]:
    messages: list[JsonObject] = [{"role": "user", "content": text} for text in texts]
    return [notice.code for notice in notice_of_cut("acme", {"messages": [*messages]}, usage)]


def test_ollama_s_silent_cut_of_a_prompt_that_is_too_long_is_told() -> None:
    [notice] = notice_of_cut(
        "ollama",
        {
            "messages": [
                {"role": "user", "content": ENGLISH * 1000},
                {"role": "user", "content": [{"type": "text", "text": ENGLISH * 1000}]},
            ]
        },
        Usage(input=4096),
    )

    assert notice.code == "context_cut"
    assert notice.text.startswith("ollama has read only a part")


@pytest.mark.parametrize(
    ("usage", "text"),
    [
        (Usage(input=12_000), ENGLISH * 1000),  # all of it
        (None, ENGLISH * 1000),  # nobody counted
        (Usage(input=0, output=5), ENGLISH * 1000),
        (Usage(input=40, cached=12_000), ENGLISH * 1000),  # counted apart
        (Usage(input=9), "Donaudampfschifffahrtsgesellschaft " * 5),
        (Usage(input=300), f"{' ' * 9_000}{'-' * 9_000}{ENGLISH * 20}"),  # a token is any of these
    ],
)
def test_a_prompt_that_may_have_been_read_whole_alarms_nobody(
    usage: Usage | None, text: str
) -> None:
    assert codes(usage, text) == []


def test_images_are_no_text() -> None:
    image: JsonObject = {"type": "image_url", "image_url": {"url": "data:" + "A" * 100_000}}
    body: JsonObject = {"messages": [{"role": "user", "content": [image]}]}

    assert list(notice_of_cut("acme", body, Usage(input=500))) == []
