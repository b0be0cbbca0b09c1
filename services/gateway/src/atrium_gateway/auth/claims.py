"""What claims of any token must be like; `tokens.py` and `issuers.py` ask for it."""

import re
from collections.abc import Collection, Mapping

from atrium_common.errors import Unauthenticated

_NAME = re.compile(r"[^\x00\ud800-\udfff]{1,200}")
"""What every database and encoding takes: no zero, and no half of a character."""
_LAST_TIME = 2**40


def token_invalid() -> Unauthenticated:
    """What is said of a token that does not hold, whichever check failed."""
    return Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")


def is_name(value: object) -> bool:
    """Whether a claim is text of 1 to 200 characters that can be stored."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_of_type(kind: object, taken: Collection[str]) -> bool:
    """Whether the header `typ` is one of `taken`, in lower case; as a media type, too."""
    return isinstance(kind, str) and kind.lower().removeprefix("application/") in taken


def is_addressed(audience: object, ours: str) -> bool:
    """Whether `aud`, a text or a list of them, has our name."""
    if isinstance(audience, list):
        return ours in audience
    return audience == ours


def check_times(claims: Mapping[str, object], *, now: float, late: float, early: float) -> float:
    """Checks `exp`, which must be there, `nbf` and `iat`.

    Args:
        claims: Of the token.
        now: Unix seconds.
        late: Seconds that it still holds after its end.
        early: Seconds before which it may begin.

    Returns:
        When it ceases to hold, in Unix seconds.

    Raises:
        Unauthenticated: It has expired, has not begun, or names no times.
    """
    expires, starts = _time(claims.get("exp")), _time(claims.get("nbf", 0))
    issued = _time(claims.get("iat", 0))
    if expires is None or starts is None or issued is None:
        raise token_invalid()
    if now >= expires + late:
        raise Unauthenticated("The token has expired.", reason="TOKEN_EXPIRED")
    if max(starts, issued) > now + early:
        raise token_invalid()
    return expires + late


def strings(value: object) -> frozenset[str]:
    """Reads a list of text.

    Raises:
        Unauthenticated: It is something else.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise token_invalid()
    return frozenset(value)


def words(value: object) -> frozenset[str]:
    """Reads a list of text, or words with spaces between them; as issuers differ in that."""
    return frozenset(value.split()) if isinstance(value, str) else strings(value)


def lookup(claims: Mapping[str, object], path: str) -> object:
    """The claim of a name, or else at a path such as ``realm_access.roles``; else ``None``."""
    if path in claims:
        return claims[path]
    found: object = claims
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < _LAST_TIME else None
