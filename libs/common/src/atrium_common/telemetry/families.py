"""Makes Prometheus' families of the plain numbers; collectors of every process use it."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from atrium_common.telemetry.tally import Tally


def gauge(
    name: str, help: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    """Makes a gauge of its label values and their numbers."""
    family = GaugeMetricFamily(name, help, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def histogram(
    name: str, help: str, label: str, tallies: Iterable[tuple[str, Tally]]
) -> HistogramMetricFamily:
    """Makes a histogram with one label; tallies that counted nothing have no series."""
    family = HistogramMetricFamily(name, help, labels=(label,))
    for value, tally in tallies:
        if tally.count:
            family.add_metric((value,), buckets=tally.buckets(), sum_value=tally.total)
    return family


class Readings(Collector):
    """Gauges without labels, each read at the scrape, in the scrape's thread."""

    def __init__(self, readings: Mapping[tuple[str, str], Callable[[], float]]) -> None:
        """Args: readings: What reads each gauge, by its name and its help text."""
        self._readings = dict(readings)

    def describe(self) -> Iterable[Metric]:
        """Names nothing ahead: reading may not be possible yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Reads each gauge."""
        for (name, help), read in self._readings.items():
            yield gauge(name, help, (), [((), read())])
