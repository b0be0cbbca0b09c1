"""What one HTTP request gathers on its way, for the access log, metrics and errors.

`middleware/observe.py` makes it; routes and the pipeline's callers add to it.
"""

from dataclasses import dataclass
from typing import cast

from starlette.types import Scope

KEY = "atrium.record"


@dataclass(slots=True)
class RequestRecord:
    """Facts of a request that are fit for a log: no content, no credentials.

    Attributes:
        request_id: From the client or made here; in every reply and log line.
        tenant: Whose request it is, once known.
        model: Catalogue id, once resolved.
        status: HTTP status that was sent; 0 before that; 499 if the client left.
        finished: True once the last byte of the answer was handed over.
        replayed: True if it was answered before, and nothing ran.
        reason: Why it ended with an error, if it did: a reason of the error tree.
        streamed: When the first byte of a streamed answer was sent, by the clock of
            `observe.py`; 0 before that.
        trace_id: The trace that it belongs to, in hexadecimal; empty if there is none.
        span_id: Its place in that trace.
    """

    request_id: str
    tenant: str = ""
    model: str = ""
    status: int = 0
    finished: bool = False
    replayed: bool = False
    reason: str = ""
    streamed: float = 0.0
    trace_id: str = ""
    span_id: str = ""


def record_of(scope: Scope) -> RequestRecord:
    """Gives the record of the request that `scope` belongs to."""
    return cast(RequestRecord, scope[KEY])
