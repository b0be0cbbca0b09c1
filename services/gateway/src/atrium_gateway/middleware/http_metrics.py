"""Prometheus collectors of the REST side; no tenant label, so that series stay few."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class HttpMetrics:
    """Counts requests and times them by route."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = Gauge(
            "atrium_http_requests_in_flight", "Requests being served.", registry=registry
        )
        self._requests = Counter(
            "atrium_http_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "atrium_http_request_seconds",
            "Time from the request's arrival to the last byte of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        # labels() locks and hashes; the children are few and live as long as the process.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts one finished request.

        Args:
            route: Pattern of the route, e.g. ``"/v1/models/{model}"``.
            method: HTTP method; one that no route takes is counted as ``"OTHER"``.
            status: HTTP status, 0 if none was sent.
            seconds: How long it took.
        """
        if route == "unmatched":
            method = "OTHER"
        counter = self._counters.get((route, method, status))
        if counter is None:
            counter = self._requests.labels(route, method, str(status))
            self._counters[route, method, status] = counter
        counter.inc()
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route)
        timer.observe(seconds)
