"""Server-sent events are read however the network cuts them."""

import random
from itertools import pairwise
from pathlib import Path
from time import process_time

import pytest

from sidecar.errors import ProviderBadResponse
from sidecar.providers.sse import MAX_EVENT_BYTES, SseDecoder, SseEvent
from tests.providers.conftest import STREAMS


def decode(*pieces: bytes) -> list[SseEvent]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()


def data(body: bytes) -> list[str]:
    return [event.data for event in decode(body)]


@pytest.mark.parametrize("path", sorted(STREAMS.glob("*.sse")), ids=lambda path: path.stem)
def test_events_are_the_same_however_the_body_is_cut(path: Path) -> None:
    body = path.read_bytes()
    whole = decode(body)
    assert whole

    assert decode(*(body[i : i + 1] for i in range(len(body)))) == whole
    for seed in range(50):
        cuts = sorted(random.Random(seed).choices(range(len(body)), k=12))
        pieces = [body[a:b] for a, b in pairwise([0, *cuts, len(body)])]
        assert decode(*pieces) == whole, f"seed {seed}"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_in_lf_crlf_or_cr(ending: bytes) -> None:
    body = b"event: a\ndata: 1\ndata: 2\n\ndata: 3\n\n".replace(b"\n", ending)

    assert decode(body) == [SseEvent("a", "1\n2"), SseEvent("", "3")]
    assert decode(*(bytes([byte]) for byte in body)) == [SseEvent("a", "1\n2"), SseEvent("", "3")]


def test_an_event_is_told_as_soon_as_its_blank_line_is_there() -> None:
    decoder = SseDecoder()

    assert decoder.feed(b"data: 1\r\n\r") == [SseEvent("", "1")]
    assert decoder.feed(b"\ndata: 2\r\n") == []


def test_comments_ids_retries_and_unknown_fields_are_no_events() -> None:
    assert decode(b": hi\n\nretry: 10\n\nid: 1\n\nevent: ping\n\ncolour: red\n\n\n\n") == []


def test_only_one_space_after_the_colon_belongs_to_the_syntax() -> None:
    assert data(b"data:1\n\ndata: 2\n\ndata:  3\n\n") == ["1", "2", " 3"]


def test_the_last_event_needs_no_blank_line() -> None:
    assert data(b"data: 1\n\ndata: 2") == ["1", "2"]


def test_a_byte_order_mark_is_skipped_even_when_it_is_cut() -> None:
    assert decode(b"\xef", b"\xbb", b"\xbfdata: 1\n\n") == [SseEvent("", "1")]


def test_line_separators_inside_a_string_are_text() -> None:
    assert data("data: a\u2028b\u0085c\n\n".encode()) == ["a\u2028b\u0085c"]


def test_an_endless_event_is_refused_before_it_fills_the_memory() -> None:
    decoder = SseDecoder("acme")
    piece = b"x" * (1024 * 1024)
    decoder.feed(b"data: ")

    with pytest.raises(ProviderBadResponse, match="acme sent an event of more than 32 MiB"):
        for _ in range(MAX_EVENT_BYTES // len(piece) + 1):
            decoder.feed(piece)


def test_a_large_event_costs_no_more_per_byte_than_a_small_one() -> None:
    decoder = SseDecoder()
    started = process_time()

    for _ in range(24 * 1024):  # searching all of it at every read would take minutes
        decoder.feed(b"x" * 1024)

    assert process_time() - started < 5
