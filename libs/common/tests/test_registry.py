"""The promises of the engine registry: by name, with what the engine needs, clear when it fails."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.domain import Capability
from atrium_common.registry import make_engine
from atrium_common.weights import WeightStore

TABLE = {"noting": f"{__name__}:NotingEngine", "absent": "atrium_no_such_library:Engine"}
ENTRY = ModelEntry(id="one", service="text2image", capabilities=(Capability.CHAT,), engine="x")


class NotingEngine:
    """Keeps what it is made with."""

    def __init__(
        self, entries: Sequence[ModelEntry], *, store: WeightStore, adapters: Sequence[str] = ()
    ) -> None:
        """Keeps it."""
        self.given = (list(entries), store, list(adapters))


def test_an_engine_is_made_with_what_its_table_promises(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    plain = make_engine(TABLE, "text2image", "noting", [ENTRY], store=store)
    adapted = make_engine(TABLE, "text2image", "noting", [ENTRY], store=store, adapters=["style"])
    assert plain.given == ([ENTRY], store, [])  # type: ignore[attr-defined]
    assert adapted.given == ([ENTRY], store, ["style"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none", "one: no engine 'none'; known: noting, absent"),
        ("absent", "needs 'atrium_no_such_library'; install atrium-text2image\\[absent\\]"),
    ],
)
def test_an_engine_that_is_not_there_is_told(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(CatalogueError, match=told):
        make_engine(TABLE, "text2image", name, [ENTRY], store=WeightStore(tmp_path))
