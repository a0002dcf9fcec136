"""What tokens cost, by a table that comes with the program and asks nobody.

An estimate always: vendors change prices, and accounts have their own. A model or an address that
the table does not have costs an unknown amount, never nothing. The table is loaded at first use,
off the loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sidecar.config import is_loopback
from sidecar.messages import Cost, Price, Usage
from sidecar.providers.base import ModelInfo
from sidecar.threads import load_modules, run_in_thread

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

_MODULE = "genai_prices"


@dataclass(frozen=True, slots=True)
class Prices:
    """Those of the vendor at one address."""

    base_url: str

    async def cost(self, model: str, usage: Usage) -> Cost | None:
        if self._is_free():
            return None
        await load_modules(_MODULE)
        found = _find(self.base_url, model, usage)
        return None if found is None else Cost(amount=float(found.total_price), estimated=True)

    async def fill_in(self, models: Sequence[ModelInfo]) -> Sequence[ModelInfo]:
        """The models with what the table knows and their vendor did not say."""
        if self._is_free():
            return models
        await load_modules(_MODULE)
        return await run_in_thread(lambda: [self._filled_in(model) for model in models], "prices")

    def _is_free(self) -> bool:
        """Nobody is paid for a model of this machine."""
        return is_loopback(urlsplit(self.base_url).hostname)

    def _filled_in(self, info: ModelInfo) -> ModelInfo:
        found = _find(self.base_url, info.model, Usage(input=1000))
        if found is None:
            return info
        price = Price(
            input=_per_million(found),
            output=_per_million(_find(self.base_url, info.model, Usage(output=1000))),
            cached=_per_million(_find(self.base_url, info.model, Usage(input=1000, cached=1000))),
        )
        context = info.context or found.model.context_window
        return replace(info, context=context, price=price)


def _per_million(thousand: "PriceCalculation | None") -> float:
    """From the price of a thousand tokens: some vendors take more for each of many."""
    return 0.0 if thousand is None else round(float(thousand.total_price) * 1000, 6)


def _find(base_url: str, model: str, usage: Usage) -> "PriceCalculation | None":
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    tokens = Tokens(
        input_tokens=usage.input,
        cache_read_tokens=usage.cached,
        cache_write_tokens=usage.cache_written,
        output_tokens=usage.output,
    )
    try:
        return calc_price(tokens, model, provider_api_url=base_url)
    except (LookupError, ValueError):  # not in the table; a price that depends on more
        return None
