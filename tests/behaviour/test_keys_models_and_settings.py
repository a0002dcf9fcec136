"""What a settings page asks for."""

from pathlib import Path

import pytest

from sidecar.app import App
from sidecar.client import Client, ServerError
from sidecar.protocol.program import ConfigGet
from sidecar.protocol.providers import (
    KeysChanged,
    KeysDelete,
    KeysSet,
    KeysSetPayload,
    KeysStatus,
    ModelsList,
    ModelsListPayload,
    ProviderPayload,
    ProvidersList,
    ProvidersTest,
)
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import FakeOpenAI, status

KEY = "sk-proj-Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA"


@pytest.fixture
async def app(start: Start) -> App:
    return await start()


@pytest.fixture
async def client(app: App, join: Join) -> Client:
    return await join(app, events=["keys"])


async def test_a_key_given_over_the_socket_is_used_at_once_and_never_read_back(
    client: Client, upstream: FakeOpenAI, tmp_path: Path
) -> None:
    stored = await client.request(KeysSet, KeysSetPayload(provider="fake", key=KEY))
    assert stored.source == "keyring"
    assert (await client.event(KeysChanged)).data.provider == "fake"

    await (await client.chat("Hi")).finished()

    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    state = await client.request(KeysStatus)
    [fake] = [item for item in state.items if item.provider == "fake"]
    assert (fake.set, fake.source) == (True, "keyring")
    assert KEY not in state.model_dump_json()
    assert KEY not in (await client.request(ConfigGet)).model_dump_json()


async def test_a_key_for_this_run_only_comes_before_the_stored_one(
    client: Client, upstream: FakeOpenAI
) -> None:
    await client.request(KeysSet, KeysSetPayload(provider="fake", key=KEY))
    payload = KeysSetPayload(provider="fake", key="only-now", persist=False)
    assert (await client.request(KeysSet, payload)).source == "session"

    await (await client.chat("Hi")).finished()

    assert upstream.requests[0].headers["authorization"] == "Bearer only-now"


async def test_a_deleted_key_is_not_sent_any_more(client: Client, upstream: FakeOpenAI) -> None:
    await client.request(KeysSet, KeysSetPayload(provider="fake", key=KEY))
    await client.request(KeysDelete, ProviderPayload(provider="fake"))

    await (await client.chat("Hi")).finished()

    assert "authorization" not in upstream.requests[0].headers


async def test_one_dead_provider_does_not_fail_the_list_of_models(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    down = "{kind: openai_compatible, base_url: 'http://127.0.0.1:9/v1'}"
    others = "openrouter: null, groq: null, mistral: null, deepseek: null, openai: null"
    app = await start(
        f"providers: {{fake: {{kind: openai_compatible, base_url: '{upstream.url}'}}, "
        f"ollama: null, lmstudio: null, {others}, down: {down}}}"
    )
    client = await join(app)

    listing = await client.request(ModelsList)

    assert [item.model for item in listing.items] == ["fake/gpt-4o-mini"]
    assert {fault.provider: fault.code for fault in listing.errors} == {
        "anthropic": "key_missing",
        "gemini": "key_missing",
        "down": "local_server_down",
    }


async def test_the_list_of_models_is_asked_for_once_unless_refreshed(
    client: Client, upstream: FakeOpenAI
) -> None:
    for refresh in (False, False, True):
        await client.request(ModelsList, ModelsListPayload(refresh=refresh))

    assert len(upstream.requests) == 2


async def test_testing_a_provider_says_what_is_wrong_and_what_to_do(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will_list(status(401, "Incorrect API key provided"))

    verdict = await client.request(ProvidersTest, ProviderPayload(provider="fake"))

    assert not verdict.ok
    assert verdict.error_info is not None
    assert verdict.error_info.code == "key_rejected"
    assert "sidecar keys set fake" in (verdict.error or "")


async def test_testing_a_provider_that_works_counts_its_models(client: Client) -> None:
    verdict = await client.request(ProvidersTest, ProviderPayload(provider="fake"))

    assert (verdict.ok, verdict.models) == (True, 1)


async def test_every_provider_says_its_kind_and_whether_it_has_a_key(client: Client) -> None:
    items = {item.provider: item for item in (await client.request(ProvidersList)).items}

    assert (items["openai"].kind, items["openai"].key_set) == ("openai", False)
    assert (items["fake"].kind, items["fake"].key_set) == ("openai_compatible", False)


async def test_the_settings_are_shown_with_their_sources_and_without_secrets(
    start: Start, join: Join
) -> None:
    app = await start("mcp: {servers: {s: {command: x, enabled: false, env: {TOKEN: hush-hush}}}}")
    client = await join(app)

    shown = await client.request(ConfigGet)

    assert shown.sources["chat.model"].startswith("file ")
    assert shown.sources["chat.max_steps"] == "default"
    assert "hush-hush" not in shown.model_dump_json()


async def test_an_unusable_key_is_refused_without_repeating_it(client: Client) -> None:
    with pytest.raises(ServerError) as caught:
        await client.request(KeysSet, KeysSetPayload(provider="fake", key="two words"))

    assert caught.value.code == "bad_request"
    assert "two words" not in str(caught.value)


async def test_a_model_server_of_this_machine_is_offered_with_models_that_chat_takes(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.models = [{"id": "llama3.2"}]

    found = (await client.request(ProvidersList)).found

    [fake] = [server for server in found if server.provider == "fake"]
    assert (fake.name, fake.base_url, fake.models) == ("fake", upstream.url, ("fake/llama3.2",))
