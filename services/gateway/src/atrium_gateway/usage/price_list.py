"""Every version of the price book in the order of its dates; tells what held at a time."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from atrium_gateway.usage.price import PriceBook, Prices


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """One row of the price book.

    Attributes:
        version: 1 or more; later rows have higher ones.
        effective_from: Aware time from which on it holds.
        model: The model that an operator priced; ``None`` for a catalogue, which prices all.
        prices: What tenants are charged; for `model`, empty if the catalogue holds again.
        costs: What providers charge; for `model`, empty to leave what the catalogue says.
    """

    version: int
    effective_from: datetime
    model: str | None = None
    prices: Prices = field(default_factory=dict)
    costs: Prices = field(default_factory=dict)

    @property
    def effective_ms(self) -> int:
        """`effective_from` in Unix milliseconds."""
        return round(self.effective_from.timestamp() * 1000)


class PriceList:
    """What was in force when: the catalogue of the time, and over it what operators set.

    Args:
        versions: All of them, in any order.
    """

    def __init__(self, versions: Iterable[PriceVersion] = ()) -> None:
        self._versions: Sequence[PriceVersion] = ()
        self._edges: Sequence[int] = ()
        self._books: dict[int, PriceBook] = {}
        self.replace(versions)

    def replace(self, versions: Iterable[PriceVersion]) -> None:
        """Takes `versions` for all there are."""
        self._versions = sorted(versions, key=lambda each: (each.effective_ms, each.version))
        self._edges = [each.effective_ms for each in self._versions]
        self._books = {}

    @property
    def newest(self) -> int:
        """The highest version, whether it holds already or not; 0 if there is none."""
        return max((each.version for each in self._versions), default=0)

    def at(self, time_ms: int) -> PriceBook:
        """The prices in force at `time_ms`, Unix milliseconds."""
        number = bisect_right(self._edges, time_ms)
        book = self._books.get(number)
        if book is None:
            book = self._books[number] = _book(self._versions[:number])
        return book


def _book(versions: Sequence[PriceVersion]) -> PriceBook:
    """What is left of `versions` when each has replaced those before it."""
    catalogues = [each for each in versions if each.model is None]
    own: dict[str, PriceVersion] = {}
    for each in versions:
        if each.model is not None and each.model in each.prices:
            own[each.model] = each
        elif each.model is not None:
            own.pop(each.model, None)
    prices = dict(catalogues[-1].prices) if catalogues else {}
    costs = dict(catalogues[-1].costs) if catalogues else {}
    for model, each in own.items():
        prices[model] = each.prices[model]
        if model in each.costs:
            costs[model] = each.costs[model]
    return PriceBook(
        catalogues[-1].version if catalogues else 0,
        prices,
        costs,
        {model: each.version for model, each in own.items()},
    )
