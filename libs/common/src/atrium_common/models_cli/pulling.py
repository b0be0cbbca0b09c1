"""What `pull` does: the space for all of it first, then one model after the other."""

from collections.abc import Sequence

from atrium_common.models_cli.options import AnyEntry
from atrium_common.models_cli.records import size_of
from atrium_common.weights.reporting import ensure_all, say
from atrium_common.weights.space import require_space
from atrium_common.weights.staging import partial_bytes
from atrium_common.weights.store import WeightStore


def pull_all(entries: Sequence[AnyEntry], store: WeightStore, *, named: bool) -> bool:
    """Fetches the entries; says what went wrong, a line each.

    Args:
        entries: What to fetch; each has sources.
        store: Where it goes.
        named: True if the operator named them: then a licence that was not accepted is an
            error, else the model is passed over.

    Returns:
        True if all are here, those that were passed over aside.

    Raises:
        WeightsError: The disk has no room for what is missing.
    """
    wanted = [entry for entry in entries if named or _is_allowed(entry, store)]
    missing = {
        entry.sources[0].fingerprint: size_of(entry) or 0
        for entry in wanted
        if store.locate(entry) is None
    }
    to_come = (max(size - partial_bytes(store.root, name), 0) for name, size in missing.items())
    require_space(sum(to_come), store.root)
    return ensure_all(store, wanted)


def _is_allowed(entry: AnyEntry, store: WeightStore) -> bool:
    if store.licences.allows(entry):
        return True
    say(
        f"{entry.id}: passed over; read its licence ({entry.license}), then run "
        f"`atrium models licence accept {entry.id}`"
    )
    return False
