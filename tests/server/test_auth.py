"""The gate's rules that no single request shows."""

import pytest
from structlog.testing import capture_logs

from sidecar.errors import BadHost, ConfigInvalid, OriginNotAllowed, Unauthorized
from sidecar.server.auth import SUMMARY_S, Gate, given_token, new_token
from sidecar.server.sessions import Sessions

TOKEN = "t0ken-" + "x" * 40


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def gate(port: int = 8000, scheme: str = "http", host: str = "127.0.0.1") -> Gate:
    return gate_with(Clock(), port, scheme, host)


def gate_with(now: Clock, port: int = 8000, scheme: str = "http", host: str = "127.0.0.1") -> Gate:
    return Gate(
        scheme=scheme,
        host=host,
        port=port,
        token=TOKEN,
        sessions=Sessions(now, redact=lambda secret: None),
        allowed_hosts=(),
        allowed_origins=(),
        opens_door=nobody,
        now=now,
    )


async def nobody(given: str) -> bool:
    return False


@pytest.mark.parametrize(
    "scheme, port, origin",
    [("http", 80, "http://127.0.0.1"), ("https", 443, "https://127.0.0.1")],
)
def test_a_default_port_is_left_out_as_browsers_do(scheme: str, port: int, origin: str) -> None:
    guard = gate(port, scheme)

    guard.check_host("127.0.0.1")
    guard.check_host(f"127.0.0.1:{port}")
    guard.check_origin(origin)
    with pytest.raises(OriginNotAllowed):
        guard.check_origin(f"{origin}:{port}")


@pytest.mark.parametrize(
    "host, origin",
    [
        ("localhost", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("192.168.1.20", "http://192.168.1.20:8000"),
    ],
)
def test_the_address_to_print_is_one_that_leads_here(host: str, origin: str) -> None:
    assert gate(host=host).origin == origin


def test_the_host_that_is_listened_on_is_ours() -> None:
    guard = gate(host="192.168.1.20")

    guard.check_host("192.168.1.20:8000")
    with pytest.raises(BadHost):
        guard.check_host("192.168.1.21:8000")


@pytest.mark.parametrize(
    "offered",
    [f"sidecar.token.{TOKEN}", f"sidecar.token.{TOKEN}, other", f"sidecarx, sidecar.token.{TOKEN}"],
)
def test_a_token_among_subprotocols_needs_one_that_we_can_answer(offered: str) -> None:
    with pytest.raises(Unauthorized):
        gate().check_token(None, offered)
    with pytest.raises(Unauthorized):  # the upgrade would log what was offered
        gate().check_token(f"Bearer {TOKEN}", offered)


def test_failures_are_one_line_a_minute() -> None:
    clock = Clock()
    guard = gate_with(clock)

    with capture_logs() as lines:
        for _ in range(100):
            with pytest.raises(Unauthorized):
                guard.check_token("Bearer wrong", None)
        clock.now_s += SUMMARY_S
        with pytest.raises(BadHost):
            guard.check_host("evil.com")

    assert [(line["count"], line["last"]) for line in lines] == [(1, "token"), (100, "host")]
    assert "wrong" not in str(lines)


@pytest.mark.parametrize("length", [43, 128])
def test_a_token_may_be_chosen_by_the_parent(length: int) -> None:
    token = ("Az09-_" * 30)[:length]

    assert given_token(token) == token


@pytest.mark.parametrize(
    "token", ["", "x" * 42, "x" * 129, "x" * 42 + " ", "x" * 42 + "\n", "x" * 42 + "é", "+" * 43]
)
def test_a_token_of_another_shape_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ConfigInvalid, match="SIDECAR_TOKEN must be 43 to 128") as refusal:
        given_token(token)

    assert not token or token not in str(refusal.value)


def test_a_new_token_is_as_good_as_a_chosen_one_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(100)}

    assert {given_token(token) for token in tokens} == tokens
    assert len(tokens) == 100
