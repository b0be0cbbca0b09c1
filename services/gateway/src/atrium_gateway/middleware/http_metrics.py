"""Prometheus collector of the REST side; no tenant label, so that series stay few.

Plain numbers, turned into samples when they are scraped: prometheus_client's own
collectors take a lock and a lookup for each, which every request would pay.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from atrium_common.telemetry.families import histogram
from atrium_common.telemetry.tally import Reasons, Tally


class HttpMetrics(Collector):
    """Counts requests and times them by route; written by the event loop's thread alone.

    Attributes:
        in_flight: Requests being served.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = 0
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._errors = Reasons()
        self._seconds: defaultdict[str, Tally] = defaultdict(Tally)
        self._first: defaultdict[str, Tally] = defaultdict(Tally)
        registry.register(self)

    def count(
        self,
        route: str,
        method: str,
        status: int,
        seconds: float,
        *,
        first_byte: float | None = None,
        reason: str = "",
    ) -> None:
        """Counts one finished request.

        Args:
            route: Pattern of the route, e.g. ``"/v1/models/{model}"``.
            method: HTTP method; one that no route takes is counted as ``"OTHER"``.
            status: HTTP status, 0 if none was sent.
            seconds: How long it took.
            first_byte: Seconds until a streamed answer's first byte.
            reason: Why it ended with an error, if it did.
        """
        if route == "unmatched":
            method = "OTHER"
        self._requests[route, method, str(status)] += 1
        self._seconds[route].observe(seconds)
        if first_byte is not None:
            self._first[route].observe(first_byte)
        if reason:
            self._errors.add(route, reason)

    def describe(self) -> Iterable[Metric]:
        """Names nothing ahead: routes are known once they are called."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Makes the samples, in the scrape's thread."""
        in_flight = GaugeMetricFamily("atrium_http_requests_in_flight", "Requests being served.")
        in_flight.add_metric((), self.in_flight)
        requests = CounterMetricFamily(
            "atrium_http_requests",
            "Requests by route, method and status.",
            labels=("route", "method", "status"),
        )
        for labels, count in tuple(self._requests.items()):
            requests.add_metric(labels, count)
        errors = CounterMetricFamily(
            "atrium_http_errors", "Requests that ended with an error.", labels=("route", "reason")
        )
        for where, count in tuple(self._errors.counts.items()):
            errors.add_metric(where, count)
        yield from (in_flight, requests, errors)
        yield histogram(
            "atrium_http_request_seconds",
            "Time from the request's arrival to the last byte of its answer.",
            "route",
            tuple(self._seconds.items()),
        )
        yield histogram(
            "atrium_http_first_byte_seconds",
            "Time from the request's arrival to the first byte of a streamed answer.",
            "route",
            tuple(self._first.items()),
        )
