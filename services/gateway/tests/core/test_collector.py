"""Garbage of requests that were in flight during two rounds of the collector does not pile up."""

import subprocess
import sys

_PROCESS = """
import gc
from collections import deque

from atrium_gateway.collector import THRESHOLDS, settle_collector

YOUNG = 200  # fewer than in a gateway, so that many rounds take no time


class Request:
    def __init__(self):
        self.itself = self


built = [[] for _ in range(100_000)]
settle_collector()
assert gc.get_freeze_count() > len(built)
gc.set_threshold(YOUNG, *THRESHOLDS[1:])
flying = deque(Request() for _ in range(50))
before, most = gc.get_stats()[2]["collections"], 0
for number in range(1000 * YOUNG):
    flying.append(Request())
    flying.popleft()
    if not number % YOUNG:
        most = max(most, len(gc.get_objects(generation=2)))
print(gc.get_stats()[2]["collections"] - before, most)
"""


def test_the_oldest_generation_is_collected_however_much_was_built_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS], capture_output=True, text=True, check=True, timeout=60
    )
    rounds, most = map(int, done.stdout.split())
    assert rounds > 20
    assert most < 1000
