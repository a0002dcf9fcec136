"""Codes are good once and for a minute, and a second use ends what the first one made."""

import pytest

from sidecar.errors import BadRequest, Unauthorized
from sidecar.server.sessions import CODE_S, CODES, SESSIONS, Sessions, parse_code
from tests.server.test_auth import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def secrets() -> list[str]:
    return []


@pytest.fixture
def sessions(clock: Clock, secrets: list[str]) -> Sessions:
    return Sessions(clock, redact=secrets.append)


def test_a_code_is_exchanged_for_a_token_that_is_another_secret(
    sessions: Sessions, secrets: list[str]
) -> None:
    code = sessions.new_code()

    token = sessions.exchange(code)

    assert sessions.knows(token)
    assert not sessions.knows(code)
    assert len(code) == len(token) == 43  # 32 bytes
    assert secrets == [token]


def test_a_second_use_ends_the_session_of_the_first_and_makes_none(sessions: Sessions) -> None:
    code = sessions.new_code()
    token, other = sessions.exchange(code), sessions.exchange(sessions.new_code())

    for _ in range(2):
        with pytest.raises(Unauthorized):
            sessions.exchange(code)

    assert not sessions.knows(token)
    assert sessions.knows(other)


def test_a_second_use_ends_the_session_also_when_it_comes_late(
    sessions: Sessions, clock: Clock
) -> None:
    code = sessions.new_code()
    token = sessions.exchange(code)
    clock.now_s += 100 * CODE_S

    with pytest.raises(Unauthorized):
        sessions.exchange(code)

    assert not sessions.knows(token)


def test_a_code_is_good_for_a_minute_and_its_session_for_longer(
    sessions: Sessions, clock: Clock
) -> None:
    in_time, late = sessions.new_code(), sessions.new_code()
    clock.now_s += CODE_S
    token = sessions.exchange(in_time)
    clock.now_s += 0.1

    with pytest.raises(Unauthorized):
        sessions.exchange(late)
    assert sessions.knows(token)


@pytest.mark.parametrize("code", ["", "x" * 43, "\u00e9", "\ud800"])
def test_a_wrong_code_is_refused_and_ends_nothing(sessions: Sessions, code: str) -> None:
    token = sessions.exchange(sessions.new_code())

    with pytest.raises(Unauthorized):
        sessions.exchange(code)

    assert sessions.knows(token)


def test_of_too_many_codes_the_oldest_is_good_no_more(sessions: Sessions) -> None:
    oldest, *others = [sessions.new_code() for _ in range(CODES + 1)]

    with pytest.raises(Unauthorized):
        sessions.exchange(oldest)
    for code in others:
        assert sessions.knows(sessions.exchange(code))


def test_of_too_many_sessions_the_oldest_ends(sessions: Sessions) -> None:
    oldest, *others = [sessions.exchange(sessions.new_code()) for _ in range(SESSIONS + 1)]

    assert not sessions.knows(oldest)
    assert all(map(sessions.knows, others))


@pytest.mark.parametrize(
    "body", [b"", b"x", b"{}", b"[]", b'"code"', b"null", b'{"code": 1}', b"\xff", b"[" * 4096]
)
def test_a_body_without_a_code_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_code(body)
