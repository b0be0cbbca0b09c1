"""The price book: what one unit of a model costs, as `Decimal`, versioned.

Filled from the catalogue when the gateway starts; admission prices every settlement.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property
from typing import Final

from atrium_common.catalogue import Catalogue
from atrium_gateway.usage.records import Units

NANO: Final = Decimal(10) ** 9
"""Costs are kept as whole billionths of the currency."""

PRICED: Final[Mapping[str, tuple[str, int]]] = {
    "million_input_tokens": ("input_tokens", 1_000_000),
    "million_output_tokens": ("output_tokens", 1_000_000),
    "million_cached_input_tokens": ("cached_input_tokens", 1_000_000),
    "million_characters": ("characters", 1_000_000),
    "input_audio_minute": ("input_audio_ms", 60_000),
    "output_audio_minute": ("output_audio_ms", 60_000),
    "image": ("images", 1),
    "megapixel_step": ("millimegapixel_steps", 1000),
    "page": ("pages", 1),
}
"""Price name of the catalogue -> (field of `Units`, counts that it pays for)."""

REQUEST: Final = "request"
_INPUT: Final = "million_input_tokens"
_CACHED: Final = "million_cached_input_tokens"
_FREE: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class _Rates:
    """Prices of one model in billionths per single count."""

    request: Decimal
    counts: tuple[tuple[str, Decimal], ...]
    cached_discount: Decimal


@dataclass(frozen=True)
class PriceBook:
    """Prices of one version.

    Attributes:
        version: 1 or more; 0 for a book without prices.
        prices: Model id -> price name of the catalogue -> currency, 0 or more.
    """

    version: int = 0
    prices: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for model, prices in self.prices.items():
            for name, price in prices.items():
                if name != REQUEST and name not in PRICED:
                    raise ValueError(f"the price {name!r} of model {model!r} is not a unit")
                if not price.is_finite() or price < 0:
                    raise ValueError(f"the price {name!r} of model {model!r} is not 0 or more")

    @cached_property
    def _rates(self) -> Mapping[str, _Rates]:
        return {model: _rates(prices) for model, prices in self.prices.items()}

    def cost(self, model: str, units: Units, *, requests: int = 1) -> tuple[int, int]:
        """Prices one piece of work.

        Cached input tokens cost their own price where there is one, and count as input
        tokens otherwise.

        Returns:
            Billionths of the currency, half to even, and the version that priced it;
            ``(0, 0)`` for a model without prices.
        """
        rates = self._rates.get(model)
        if rates is None:
            return 0, 0
        total = rates.request * requests
        for field_name, rate in rates.counts:
            count = getattr(units, field_name)
            if count:
                total += rate * count
        if rates.cached_discount and units.cached_input_tokens:
            cached = min(units.cached_input_tokens, units.input_tokens)
            total -= rates.cached_discount * cached
        return int(total.to_integral_value(rounding=ROUND_HALF_EVEN)), self.version


def _rates(prices: Mapping[str, Decimal]) -> _Rates:
    rates = {
        name: price * NANO / PRICED[name][1] for name, price in prices.items() if name in PRICED
    }
    full = rates.get(_INPUT, _FREE)
    return _Rates(
        request=prices.get(REQUEST, _FREE) * NANO,
        counts=tuple((PRICED[n][0], rate) for n, rate in rates.items() if rate and n != _CACHED),
        cached_discount=full - rates.get(_CACHED, full),
    )


def catalogue_prices(catalogue: Catalogue) -> dict[str, dict[str, Decimal]]:
    """The prices that a catalogue states, without the free models and units."""
    stated = {
        entry.id: {
            name: amount
            for name, amount in entry.price.model_dump().items()
            if amount or (amount is not None and name == _CACHED)
        }
        for entry in catalogue.models
    }
    return {model: prices for model, prices in stated.items() if prices}
