"""What each service takes of each card, and whether that fits; pure arithmetic.

`__main__` gives it settings, catalogue and cards, and prints what it finds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.preflight.cards import Card
from atrium_common.preflight.settings import ShareSettings

PROCESSOR_ENGINES = frozenset({"fake", "kokoro", "openai", "rapidocr", "tesseract"})
"""They hold nothing on a card, whatever their service is given."""
VLLM_SHARE = 0.92
"""What vLLM takes of its card where nothing is said."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one service takes of one card.

    Attributes:
        service: The service.
        card: Index of the card.
        models: Ids of its models that run there.
        mib: Most that it holds there, in MiB.
    """

    service: str
    card: int
    models: tuple[str, ...]
    mib: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The shares, and what is wrong with them.

    Attributes:
        cards: The cards that are planned with.
        shares: By service, then card.
        problems: Each one sentence with names and numbers; empty if all fits.
        unknown: Ids of models on a card that the catalogue states no memory of.
    """

    cards: tuple[Card, ...]
    shares: tuple[Share, ...]
    problems: tuple[str, ...]
    unknown: tuple[str, ...]

    def held_mib(self, card: Card) -> int:
        """What the services take of a card together, in MiB."""
        return sum(share.mib for share in self.shares if share.card == card.index)


def make_plan(
    catalogue: Catalogue,
    settings: Mapping[str, ShareSettings],
    cards: Sequence[Card],
    *,
    reserve_mib: int,
) -> Plan:
    """Sums what the services take.

    Args:
        catalogue: The models that are offered.
        settings: By service, those that are started.
        cards: The machine's.
        reserve_mib: What stays free on each card, in MiB.
    """
    shares: list[Share] = []
    problems: list[str] = []
    unknown: list[str] = []
    for service, share_settings in settings.items():
        entries = catalogue.for_service(service)
        if not entries:
            problems.append(
                f"{service} is started, but no model of it is offered: leave its profile out"
            )
        on_cards = [entry for entry in entries if entry.engine not in PROCESSOR_ENGINES]
        if not share_settings.gpu or not on_cards:
            continue
        unknown += [entry.id for entry in on_cards if _says_nothing(entry)]
        found, wrong = _on_cards(service, share_settings, on_cards, cards)
        shares += found
        problems += wrong
    plan = Plan(tuple(cards), tuple(shares), (), tuple(unknown))
    for card in cards:
        room, held = card.memory_mib - reserve_mib, plan.held_mib(card)
        if held > room:
            problems.append(
                f"card {card.index} is overfull: {held} MiB are planned, "
                f"{room} MiB of {card.memory_mib} may be used"
            )
    return Plan(plan.cards, plan.shares, tuple(problems), plan.unknown)


def _on_cards(
    service: str, settings: ShareSettings, entries: Sequence[ModelEntry], cards: Sequence[Card]
) -> tuple[list[Share], list[str]]:
    """Returns the service's share of each of its cards, and what is wrong with them."""
    given = [card for card in cards if any(card.is_called(name) for name in settings.gpu)]
    if missing := [n for n in settings.gpu if not any(card.is_called(n) for card in cards)]:
        there = ", ".join(str(card.index) for card in cards) or "none"
        return [], [f"{service} asks for card {missing[0]}; there are: {there}"]
    # Only vLLM spreads a model over cards; the others take the first that they see.
    shares = []
    for position, card in enumerate(given):
        here = [entry for entry in entries if entry.engine == "vllm" or position == 0]
        needs = [_need_mib(entry, settings, card) for entry in here]
        if here:
            held = _bounded(needs, settings.memory_budget_mib)
            shares.append(Share(service, card.index, tuple(entry.id for entry in here), held))
    return shares, _too_small(service, settings, entries, given)


def _need_mib(entry: ModelEntry, settings: ShareSettings, card: Card) -> int:
    if entry.engine == "vllm":
        return int(_vllm_share(entry, settings) * card.memory_mib)
    return entry.memory_mib or 0


def _bounded(needs: Sequence[int], budget: int) -> int:
    """Under a budget models make room for each other, but one is always there whole."""
    return min(sum(needs), max(budget, *needs)) if budget else sum(needs)


def _too_small(
    service: str, settings: ShareSettings, entries: Sequence[ModelEntry], cards: Sequence[Card]
) -> list[str]:
    """Names the models that do not fit into what their service is given."""
    problems = []
    for entry in entries:
        need = entry.memory_mib or 0
        budget = settings.memory_budget_mib
        if budget and need > budget:
            problems.append(
                f"{service}: {entry.id} takes {need} MiB, its memory_budget_mib is {budget}"
            )
        if entry.engine != "vllm" or _is_shortened(entry, settings):
            continue  # a shorter window needs less than the catalogue says
        share = sum(_need_mib(entry, settings, card) for card in cards)
        if need > share:
            problems.append(
                f"{service}: {entry.id} takes {need} MiB, its gpu_memory_utilization of "
                f"{_vllm_share(entry, settings)} gives {share}"
            )
    return problems


def _vllm_share(entry: ModelEntry, settings: ShareSettings) -> float:
    if settings.gpu_memory_utilization is not None:
        return settings.gpu_memory_utilization
    stated = entry.options.get("gpu_memory_utilization")
    return float(stated) if isinstance(stated, int | float) else VLLM_SHARE


def _is_shortened(entry: ModelEntry, settings: ShareSettings) -> bool:
    window = settings.max_model_len
    return window is not None and window < (entry.context_length or window)


def _says_nothing(entry: ModelEntry) -> bool:
    return entry.memory_mib is None and entry.engine != "vllm"
