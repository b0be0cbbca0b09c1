"""One endpoint in the table of paths; `routes.py` and `admin_routes.py` fill it."""

from dataclasses import dataclass

from atrium_gateway.api.exchange import Endpoint
from atrium_gateway.api.openapi import Operation


@dataclass(frozen=True, slots=True)
class Path:
    """One endpoint: where it is, what serves it, how `/docs` describes it."""

    method: str
    path: str
    endpoint: Endpoint
    tag: str
    operation: Operation
