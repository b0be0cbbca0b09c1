"""Requests with an `Idempotency-Key`: run once, answered again; the route of every POST.

The gate stands in `receive`: the last piece of the body reaches the endpoint only once the
key is known to be new. So nothing runs before, and no body is held a second time.
"""

import re
from collections.abc import Awaitable
from typing import Any

import structlog
from starlette.types import Message, Receive, Scope, Send

from atrium_gateway.api.exchange import Endpoint, Exchange, ExchangeRoute
from atrium_gateway.auth.principal import Principal
from atrium_gateway.errors import handle
from atrium_gateway.idempotency.domain import Attempt, KeptAnswer, invalid_key, key_digest
from atrium_gateway.idempotency.fingerprint import Fingerprint
from atrium_gateway.idempotency.keeper import Hold, Keeper
from atrium_gateway.middleware.shortcut import answered

logger = structlog.get_logger(__name__)

HEADER = b"idempotency-key"
REPLAYED = b"idempotency-replayed"
KEPT_REFUSALS = frozenset({400, 413, 415, 422})
"""Refusals by the request alone. What depends on time, limits or rights frees the key."""
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_STALE = b"x-ratelimit-"
"""Limits as they were then; nothing is said of them in a replay."""


class KeyedRoute(ExchangeRoute):
    """A route whose requests may bring a key; one without it takes the plain way."""

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        plain = self.app

        def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if HEADER not in dict(scope["headers"]):
                return plain(scope, receive, send)
            keeper = scope["app"].state.gateway.idempotency
            if keeper is None:
                return plain(scope, receive, send)
            return serve_once(endpoint, scope, receive, send, keeper=keeper)

        self.app = serve


async def serve_once(
    endpoint: Endpoint, scope: Scope, receive: Receive, send: Send, *, keeper: Keeper
) -> None:
    """Serves a request that has a key."""
    exchange = KeyedExchange(scope, receive, send, keeper=keeper)

    async def run(_scope: Scope, _receive: Receive, _send: Send) -> None:
        try:
            await endpoint(exchange)
        except Replay as replay:
            await exchange.replay(replay.answer)

    try:
        await answered(run, scope, receive, exchange.recorded, handle)
    finally:
        await exchange.finish()


class Replay(Exception):
    """The request has been answered before."""

    def __init__(self, answer: KeptAnswer) -> None:
        super().__init__(answer.request_id)
        self.answer = answer


class KeyedExchange(Exchange):
    """An exchange that asks for its key before the endpoint has the whole body."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, keeper: Keeper) -> None:
        super().__init__(scope, self._gated, self.recorded)
        self._take = receive
        self._give = send
        self._keeper = keeper
        self._principal: Principal | None = None
        self._hold: Hold | None = None
        self._claimed = False
        self._spoilt = False
        self._withheld = False
        self._status = 0
        self._answered_with: list[tuple[bytes, bytes]] = []
        self._fingerprint = Fingerprint(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"],
            content_type=self._header(b"content-type"),
        )

    async def authenticate(self) -> Principal:
        """As without a key; one of an empty request is asked for here.

        Raises:
            InvalidArgument: The key is none.
        """
        if self._principal is None:
            self._principal = await super().authenticate()
            self._key()
            length = self._header(b"content-length")
            if length in ("", "0") and not self._header(b"transfer-encoding"):
                await self._claim(self._principal)
        return self._principal

    def spoil(self) -> None:
        """The answer breaks off: it is not kept, although it has an end."""
        self._spoilt = True

    def withhold(self) -> None:
        """The answer is shown once: it is not kept, and a repeat is refused."""
        self._withheld = True

    async def recorded(self, message: Message) -> None:
        """Sends a message; the last one leaves when the answer is kept."""
        hold = self._hold
        if hold is not None and not hold.closed:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                self._answered_with = list(message["headers"])
            else:
                await hold.body.add(message.get("body", b""))
                if not message.get("more_body"):
                    await self._close(hold)
        await self._give(message)

    async def replay(self, answer: KeptAnswer) -> None:
        """Gives an answer again."""
        self.record.replayed = True
        logger.debug("answer replayed", request_id=self.record.request_id, first=answer.request_id)
        kept = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        start = {"type": "http.response.start", "status": answer.status}
        await self._give({**start, "headers": [*kept, (REPLAYED, b"true")]})
        async for piece in self._keeper.store.pieces(answer):
            await self._give({"type": "http.response.body", "body": piece, "more_body": True})
        await self._give({"type": "http.response.body", "body": b""})

    async def finish(self) -> None:
        """Frees the key of an answer that never was whole."""
        if self._hold is not None and not self._hold.closed:
            await self._hold.release()

    async def _gated(self) -> Message:
        message = await self._take()
        if message["type"] == "http.request" and not self._claimed:
            self._fingerprint.add(message.get("body", b""))
            if not message.get("more_body"):
                await self._claim(await self.authenticate())
        return message

    async def _claim(self, principal: Principal) -> None:
        if self._claimed:
            return
        self._claimed = True
        attempt = Attempt(
            tenant=principal.tenant,
            digest=key_digest(self.method, self.scope["path"], self._key()),
            fingerprint=self._fingerprint.digest(),
            id=self._keeper.new_id(),
            request_id=self.record.request_id,
        )
        found = await self._keeper.claim(attempt)
        if isinstance(found, KeptAnswer):
            raise Replay(found)
        self._hold = found

    def _key(self) -> bytes:
        given = [value for name, value in self.scope["headers"] if name == HEADER]
        if len(given) != 1 or not _KEY.fullmatch(given[0]):
            raise invalid_key()
        key: bytes = given[0]
        return key

    async def _close(self, hold: Hold) -> None:
        refused = self._status >= 400
        if self._spoilt or (refused and self._status not in KEPT_REFUSALS):
            await hold.release()
        elif self._withheld:
            await hold.forgo()
        else:
            await hold.keep(
                status=self._status,
                headers=tuple(
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in self._answered_with
                    if not name.startswith(_STALE)
                ),
            )
