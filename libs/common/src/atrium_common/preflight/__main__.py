"""`python -m atrium_common.preflight`: prints the plan of the cards; status 1 if it fails."""

import sys
from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from atrium_common.errors import AtriumError
from atrium_common.preflight.cards import Card, declared, installed
from atrium_common.preflight.settings import PreflightSettings, ShareSettings
from atrium_common.preflight.shares import Plan, make_plan

ADVICE = "take a smaller preset (deploy/presets), fewer models (ATRIUM_MODELS) or fewer profiles"


def main() -> int:
    """Returns the exit status."""
    try:
        settings = PreflightSettings()
        plan = _plan(settings)
    except (AtriumError, ValidationError) as err:
        sys.stdout.write(f"preflight: {err}\n")
        return 1
    sys.stdout.write("\n".join(_lines(plan, settings.reserve_mib)) + "\n")
    return 1 if plan.problems else 0


def _plan(settings: PreflightSettings) -> Plan:
    services = {name: ShareSettings.of(name) for name in settings.services()}
    cards: Sequence[Card] = []
    if any(share.gpu for share in services.values()):
        found = installed()
        cards = declared(settings.cards_mib) if found is None else found
    return make_plan(settings.open_catalogue(), services, cards, reserve_mib=settings.reserve_mib)


def _lines(plan: Plan, reserve_mib: int) -> Iterator[str]:
    for card in plan.cards:
        yield f"card {card.index}: {card.name}, {card.memory_mib} MiB, {reserve_mib} kept free"
        for share in plan.shares:
            if share.card == card.index:
                yield f"  {share.service:<12}{share.mib:>8} MiB  {', '.join(share.models)}"
        yield f"  {'together':<12}{plan.held_mib(card):>8} MiB"
    if not plan.shares:
        yield "no model needs a card"
    if plan.unknown:
        yield f"not counted, the catalogue states no memory_mib: {', '.join(plan.unknown)}"
    for problem in plan.problems:
        yield f"refused: {problem}"
    yield f"refused: {ADVICE}" if plan.problems else "preflight: this fits"


if __name__ == "__main__":
    sys.exit(main())
