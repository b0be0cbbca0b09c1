"""The public keys of one issuer: fetched when needed, seldom, by one at a time, kept on outage.

`issuers.py` asks for a key by its id. An unknown id leads to a new look at the issuer, as a
rotation does; a flood of them leads to no more than one look in `REFETCH_SECONDS`.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, RSAKey

from atrium_common.errors import Unavailable
from atrium_gateway.auth.documents import DocumentError, Fetch
from atrium_gateway.auth.issuer_rules import IssuerRules, is_safe

_log = structlog.get_logger(__name__)

PublicKey = RSAKey | ECKey

REFETCH_SECONDS = 10.0
"""Shortest pause between two looks at an issuer, whoever asks."""
FRESH_SECONDS = 300.0
"""After this time keys are looked at anew, in the background: one may have been withdrawn."""
MAX_KEYS = 64
_SIZES = {"kid": (0, 200), "n": (342, 1400), "e": (1, 8), "x": (43, 43), "y": (43, 43)}
"""Characters of a key's members: a modulus has 2048 to 8192 bits, a coordinate 256."""
_UNREADABLE = (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError)
_RSA_BITS = range(2048, 8193)
_TYPES = {"RS256": ("RSA", None), "ES256": ("EC", "P-256")}


class KeySet:
    """Keys of one issuer.

    Args:
        rules: Which issuer, and which algorithms.
        fetch: Fetches its documents.
        clock: Monotonic seconds.
    """

    def __init__(self, rules: IssuerRules, *, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[tuple[str, str], PublicKey] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._failed = False
        self._looking: asyncio.Task[None] | None = None

    async def key(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key of an id for an algorithm, or ``None`` if the issuer has none.

        Args:
            kid: As the token names it; ``None`` takes the only key that fits.
            algorithm: One of those that the rules list.

        Raises:
            Unavailable: It is not known, and the issuer can't be asked.
        """
        found = self._known(kid, algorithm)
        if found is None:
            looking = self._look()
            if looking is not None:
                # Shielded: who leaves must not end it for the others.
                await asyncio.shield(looking)
                found = self._known(kid, algorithm)
            if found is None and self._failed:
                raise Unavailable(
                    "The token's issuer can't be reached now.",
                    retry_after=timedelta(seconds=REFETCH_SECONDS),
                )
        elif self._clock() - self._fetched >= FRESH_SECONDS:
            self._look()
        return found

    async def close(self) -> None:
        """Ends a look that is under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _known(self, kid: str | None, algorithm: str) -> PublicKey | None:
        if kid is not None:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _look(self) -> "asyncio.Task[None] | None":
        """The look that is under way, or a new one; ``None`` if the last was just now."""
        if self._looking is None or self._looking.done():
            if self._clock() - self._tried < REFETCH_SECONDS:
                return None
            self._tried = self._clock()
            self._looking = asyncio.create_task(self._refresh(), name="issuer-keys")
        return self._looking

    async def _refresh(self) -> None:
        try:
            document = await self._fetch(await self._address())
            keys = _usable(document, self._rules)
        except DocumentError as err:
            self._failed = True
            _log.warning("issuer_keys_kept", issuer=self._rules.issuer, cause=str(err))
            return
        self._failed = False
        self._keys = keys
        self._fetched = self._clock()
        _log.info("issuer_keys", issuer=self._rules.issuer, keys=len(keys))

    async def _address(self) -> str:
        if self._rules.jwks_url is not None:
            return self._rules.jwks_url
        issuer = self._rules.issuer
        found = await self._fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise DocumentError("the discovery document is of another issuer")
        address = found.get("jwks_uri")
        if not isinstance(address, str) or not is_safe(address):
            raise DocumentError("the discovery document names no jwks_uri that is safe")
        return address


def _usable(
    document: Mapping[str, object], rules: IssuerRules
) -> Mapping[tuple[str, str], PublicKey]:
    """Keys by id and algorithm; those that can't sign tokens for us are left out."""
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise DocumentError("no list of keys, or too many")
    keys: dict[tuple[str, str], PublicKey] = {}
    for number, entry in enumerate(listed):
        for algorithm in rules.algorithms:
            key = _read(entry, algorithm)
            if key is not None:
                # One without an id gets what no token can name.
                keys.setdefault((entry.get("kid") or f"\0{number}", algorithm), key)
    return keys


def _read(entry: object, algorithm: str) -> PublicKey | None:
    if not isinstance(entry, dict) or not _is_for(entry, algorithm):
        return None
    try:
        key = JWKRegistry.import_key(entry)
    except _UNREADABLE:
        return None
    if isinstance(key, RSAKey):
        return key if key.public_key.key_size in _RSA_BITS else None
    return key if isinstance(key, ECKey) else None


def _is_for(entry: Mapping[str, object], algorithm: str) -> bool:
    """Whether a key says of itself that it verifies with an algorithm, in sound sizes."""
    kind, curve = _TYPES[algorithm]
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("kty") == kind
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", algorithm) == algorithm
        and (curve is None or entry.get("crv") == curve)
        and isinstance(operations, list)
        and "verify" in operations
        and "d" not in entry
        and all(_is_sized(entry[name], *sizes) for name, sizes in _SIZES.items() if name in entry)
    )


def _is_sized(member: object, least: int, most: int) -> bool:
    return isinstance(member, str) and least <= len(member) <= most
