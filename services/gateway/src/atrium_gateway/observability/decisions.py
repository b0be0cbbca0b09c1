"""How admission decided, and how long it took; `WatchedAdmission` counts, /metrics reads.

Plain numbers, turned into samples at the scrape: this is on the way of every request.
"""

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from atrium_common.errors import AtriumError, QuotaExceeded, Unavailable
from atrium_common.telemetry.tally import Tally


class Decisions(Collector):
    """Counts decisions; written by the event loop's thread alone."""

    def __init__(self) -> None:
        self.seconds = Tally()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def admitted(self) -> None:
        """Counts a reservation."""
        self._counts["admitted", "", ""] += 1

    def refused(self, error: AtriumError) -> None:
        """Counts a refusal by what it was."""
        if isinstance(error, QuotaExceeded) and error.violations:
            first = error.violations[0]
            self._counts["refused", first.unit, first.name.rpartition(":")[2]] += 1
        elif isinstance(error, Unavailable):
            self._counts["unavailable", "", ""] += 1
        else:
            self._counts["denied", "", ""] += 1

    def describe(self) -> Iterable[Metric]:
        """Names nothing ahead."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Makes the samples, in the scrape's thread."""
        counts = CounterMetricFamily(
            "atrium_admissions", "Admission decisions.", labels=("decision", "unit", "window")
        )
        for labels, count in tuple(self._counts.items()):
            counts.add_metric(labels, count)
        yield counts
        seconds = HistogramMetricFamily("atrium_admission_seconds", "Time to decide.")
        seconds.add_metric((), buckets=self.seconds.buckets(), sum_value=self.seconds.total)
        yield seconds
