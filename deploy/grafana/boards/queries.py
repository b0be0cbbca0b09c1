"""PromQL that the dashboards have in common."""

from collections.abc import Sequence

from .panels import Query

RATE = "[$__rate_interval]"


def rate(metric: str, *labels: str, where: str = "") -> str:
    """Sum of a counter's rates by `labels`; `where` is a selector in braces."""
    return f"sum{_by(labels)} (rate({metric}{where}{RATE}))"


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def quantile(share: float, metric: str, *labels: str, where: str = "") -> str:
    """A quantile of a histogram by `labels`; `share` is from 0 to 1."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', *labels, 'le', where=where)})"


def quantiles(metric: str, label: str, where: str) -> tuple[Query, ...]:
    """Median and 95th percentile of a histogram by one label."""
    return tuple(
        Query(quantile(share, metric, label, where=where), f"{{{{{label}}}}} p{share * 100:.0f}")
        for share in (0.5, 0.95)
    )
