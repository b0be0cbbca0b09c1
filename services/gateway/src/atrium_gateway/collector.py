"""How Python's cycle collector runs in a gateway; `__main__` sets it once all is built."""

import gc
from typing import Final

THRESHOLDS: Final = (20_000, 5, 5)
"""Objects before a round; rounds before one looks at the middle generation, and at all.

A request makes some 45 objects that only the collector can free. Those of requests that are
in flight during two rounds reach the oldest generation and stay garbage until a round looks
at all: with the two 5s within some 16,000 requests. That costs little, for what is frozen
is not looked at.
"""


def settle_collector() -> None:
    """Leaves what is in memory now out of every later round, and sets how often one comes."""
    gc.collect()
    gc.freeze()
    # CPython puts off looking at all until a quarter as many objects are new as the last such
    # round left: the one above left everything, this one nearly nothing.
    gc.collect()
    gc.set_threshold(*THRESHOLDS)
