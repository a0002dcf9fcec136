"""A fake upstream, and a provider of each kind that points at it."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from sidecar.config import NetworkConfig, ProviderConfig, ProviderKind, TimeoutsConfig
from sidecar.messages import (
    Message,
    Part,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    ToolStatus,
)
from sidecar.providers import open_provider
from sidecar.providers.base import ModelRequest, Provider
from sidecar.providers.discovery import Find, Found
from sidecar.providers.http import Http
from tests.support.fake_openai import FakeOpenAI

STREAMS = Path(__file__).parent / "streams"
PATIENT = TimeoutsConfig(connect_s=5, first_byte_s=5, silence_s=5, total_s=None)

# What each kind must be told to speak the format of chat completions, as the fake upstream does.
CHAT: dict[ProviderKind, Literal["chat"] | None] = {"openai": "chat", "openai_compatible": None}

Open = Callable[..., Provider]


def message(role: Role, *parts: Part) -> Message:
    return Message(message_id="m", parent_id=None, role=role, parts=parts, created_at="")


def user(text: str) -> Message:
    return message("user", TextPart(text=text))


def asking(text: str = "Hi", model: str = "gpt-4o-mini") -> ModelRequest:
    return ModelRequest(model=model, history=[user(text)])


def call(call_id: str, name: str = "s_f", **arguments: Any) -> ToolCallPart:
    return ToolCallPart(
        tool_call_id=call_id, server="s", name="f", offered_as=name, arguments=arguments
    )


def result(call_id: str, text: str, status: ToolStatus = "ok") -> ToolResultPart:
    return ToolResultPart(tool_call_id=call_id, status=status, text=text, duration_ms=1)


def tool(name: str, description: str | None = None, **schema: Any) -> Tool:
    return Tool(
        name=name,
        server="s",
        server_name=name,
        description=f"Does {name}" if description is None else description,
        input_schema=schema,
        fingerprint="",
        digest="",
    )


async def nothing() -> Sequence[Found]:
    """What is found on a machine without model servers, whatever this one has."""
    return ()


@pytest.fixture(autouse=True)
def no_vendor_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def upstream() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http(NetworkConfig(proxy=None, ca_bundle=None, trust_os_store=True))
    yield http
    await http.close()


@pytest.fixture(params=["openai", "openai_compatible"])
def kind(request: pytest.FixtureRequest) -> ProviderKind:
    kind: ProviderKind = request.param
    return kind


@pytest.fixture
def open_it(http: Http, upstream: FakeOpenAI, kind: ProviderKind) -> Open:
    """Open a provider at the fake upstream; every argument has a harmless default."""

    def open_it(
        *,
        base_url: str | None = None,
        key: str | None = "sk-test-0123456789",
        headers: dict[str, str] | None = None,
        timeouts: TimeoutsConfig = PATIENT,
        max_retries: int = 0,
        find_local: Find = nothing,
        **section: Any,
    ) -> Provider:
        async def find_key() -> str | None:
            return key

        settings = {
            "kind": kind,
            "base_url": base_url or upstream.url,
            "headers": headers or {},
            "api": CHAT.get(kind),
        }
        return open_provider(
            "acme",
            ProviderConfig(**settings | section),
            http=http,
            key=find_key,
            timeouts=timeouts,
            max_retries=max_retries,
            find_local=find_local,
        )

    return open_it
