"""Memory of the gateway's process while requests go through: a leak would show from leg to leg.

    python -m tests.bench.memory [--requests 1000000] [--stores alone|together] [--plain]

A million requests take an hour or so, so `gateway.py` sends fewer. Each has an
`Idempotency-Key` of its own unless `--plain` is given.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression

from tests.bench.load import LoadPlan
from tests.bench.report import console, send, table
from tests.bench.sides import CHAT, Bench, alone, chat, together

_CALLERS = 16
_WARM_SHARE = 0.25
"""Of the legs; caches and arenas fill in them."""
_FLAT_BYTES = 20.0
"""Growth per request below which memory counts as flat: 20 MB in a million."""


def measure(bench: Bench, *, requests: int, legs: int, keyed: bool) -> None:
    """Sends so many requests, and prints what the process holds after each leg."""
    process = bench.gateway.process
    sizes = [(0, process.memory_info().rss)]
    each = max(1, requests // legs // _CALLERS)
    plan = LoadPlan(
        bench.gateway.url + CHAT,
        chat(stream=False, tokens=8),
        bench.headers,
        callers=_CALLERS,
        requests=each,
        keyed=keyed,
    )
    for leg in range(1, legs + 1):
        send(plan)
        sizes.append((leg * each * _CALLERS, process.memory_info().rss))
        console.print(f"{sizes[-1][0]:,} requests: {sizes[-1][1] / 1e6:.1f} MB")
    table(
        f"Memory of the gateway's process ({bench.stores}; goal under 200 MB)",
        ("requests", "MB"),
        [*((f"{sent:,}", f"{size / 1e6:.1f}") for sent, size in sizes), _verdict(sizes)],
    )


def _verdict(sizes: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """Slope after warm-up, and whether it counts as flat."""
    settled = sizes[int(len(sizes) * _WARM_SHARE) + 1 :]
    slope = linear_regression(*zip(*settled, strict=True)).slope
    said = "flat" if slope < _FLAT_BYTES else "growing"
    return f"slope after warm-up: {slope:.1f} bytes a request", said


def main() -> None:
    """Reads the options and prints one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--stores", choices=("alone", "together"), default="alone")
    parser.add_argument("--plain", action="store_true", help="without Idempotency-Key")
    chosen = parser.parse_args()
    running = {"alone": alone, "together": together}[chosen.stores]
    with (
        tempfile.TemporaryDirectory(prefix="atrium-bench-") as folder,
        running(Path(folder) / "state") as bench,
    ):
        measure(bench, requests=chosen.requests, legs=20, keyed=not chosen.plain)


if __name__ == "__main__":
    main()
