"""Makes the request's context from its metadata; called by `edge.py` for every RPC."""

import re
import time
from collections.abc import Callable, Mapping
from uuid import uuid4

from atrium_common.context import RequestContext
from atrium_common.interceptors.auth import Caller
from atrium_common.interceptors.metadata import REQUEST_ID

_VISIBLE = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(metadata: Mapping[str, str]) -> str:
    """Returns the caller's request id if it is 1 to 128 visible characters, else a new one."""
    given = metadata.get(REQUEST_ID)
    if given is not None and _VISIBLE.fullmatch(given):
        return given
    return uuid4().hex


def make_context(
    caller: Caller,
    *,
    request_id: str,
    time_remaining: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> RequestContext:
    """Makes the context as it is known before admission.

    Args:
        caller: Who calls. A tenant's name is filled in once admission has read its token.
        request_id: From `request_id`.
        time_remaining: Seconds that the caller still waits; ``None`` for ever.
        clock: Monotonic seconds.
    """
    return RequestContext(
        request_id=request_id,
        tenant=caller.tenant,
        subject="",
        weight=caller.weight,
        deadline=None if time_remaining is None else clock() + time_remaining,
        reservation_id=caller.reservation_id,
    )
