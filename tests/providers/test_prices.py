"""What tokens cost, as far as a table knows."""

from sidecar.messages import Usage
from sidecar.providers.base import ModelInfo
from sidecar.providers.prices import Prices

OPENAI = Prices("https://api.openai.com/v1")


async def test_a_cost_is_an_estimate_in_which_cached_tokens_are_cheaper() -> None:
    fresh = await OPENAI.cost("gpt-4o-mini", Usage(input=1000, output=100))
    cached = await OPENAI.cost("gpt-4o-mini", Usage(input=1000, cached=900, output=100))

    assert fresh is not None and cached is not None
    assert fresh.estimated
    assert 0 < cached.amount < fresh.amount < 0.01


async def test_tokens_put_into_the_cache_cost_more_than_those_only_read() -> None:
    anthropic = Prices("https://api.anthropic.com/v1")

    read = await anthropic.cost("claude-sonnet-4-5", Usage(input=1000))
    written = await anthropic.cost("claude-sonnet-4-5", Usage(input=1000, cache_written=800))

    assert read is not None and written is not None
    assert written.amount > read.amount


async def test_an_unknown_model_and_an_unknown_address_cost_an_unknown_amount() -> None:
    usage = Usage(input=1000, output=100)

    assert await OPENAI.cost("gpt-of-tomorrow", usage) is None
    assert await Prices("https://llm.example.com/v1").cost("gpt-4o-mini", usage) is None
    assert await Prices("http://127.0.0.1:11434/v1").cost("gpt-4o-mini", usage) is None


async def test_a_list_of_models_gets_what_its_vendor_did_not_say() -> None:
    asked = [ModelInfo("gpt-4o-mini", "Mini"), ModelInfo("of-tomorrow", "New", context=5)]

    known, unknown = await OPENAI.fill_in(asked)

    assert known.price is not None
    assert known.price.output > known.price.input > 0
    assert known.price.cached is not None and known.price.cached < known.price.input
    assert known.context and known.context > 100_000
    assert unknown == asked[1]
