"""An OIDC issuer for tests: discovery and JWKS over HTTP, with keys that a test rotates."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

NOW = 1_773_491_400
RSA = RSAKey.generate_key(2048, {"kid": "rsa-1"})
RSA_2 = RSAKey.generate_key(2048, {"kid": "rsa-2"})
EC = ECKey.generate_key("P-256", {"kid": "ec-1"})


def public(key: RSAKey | ECKey, **changes: object) -> dict[str, Any]:
    """A key as JWKS shows it; ``...`` leaves a member out."""
    members = {**key.as_dict(private=False), "kid": key.kid, "use": "sig", **changes}
    return {name: value for name, value in members.items() if value is not ...}


class Issuer:
    """What a test changes and counts.

    Attributes:
        url: The issuer's name and address.
        keys: What JWKS lists.
        body: Answer of JWKS instead of the keys, whole, with its head.
        document: Members that the discovery document has beside or instead of its own.
        asked: Paths that were asked for, in order.
        pause: Seconds before an answer.
    """

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[Any] = [public(RSA), public(EC)]
        self.body: bytes | None = None
        self.document: dict[str, object] = {}
        self.asked: list[str] = []
        self.pause = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode()
        self.asked.append(path)
        await asyncio.sleep(self.pause)
        if path == "/jwks" and self.body is not None:
            answer = self.body
        else:
            found = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **self.document}
            answer = http(json.dumps({"keys": self.keys} if path == "/jwks" else found).encode())
        try:
            writer.write(answer)
            await writer.drain()
        except ConnectionError:
            return  # it had heard enough
        finally:
            writer.close()

    def sign(self, key: RSAKey | ECKey = RSA, *, head: object = None, **changes: object) -> str:
        """A token of it; ``...`` leaves a claim or a header out."""
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        header = {"alg": algorithm, "typ": "at+jwt", "kid": key.kid, **(head or {})}  # type: ignore[dict-item]
        claims = {
            "iss": self.url,
            "aud": "atrium",
            "sub": "ann",
            "tenant": "acme",
            "scope": "chat usage:read",
            "iat": NOW,
            "exp": NOW + 600,
            **changes,
        }
        return jws.serialize_compact(_without(header), json.dumps(_without(claims)), key)


def http(body: bytes, *, status: str = "200 OK", more: str = "") -> bytes:
    """An answer on the wire."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@asynccontextmanager
async def running_issuer() -> AsyncIterator[Issuer]:
    """Runs an issuer on a free port."""
    issuer = Issuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        server.close()
        await server.wait_closed()


def _without(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ...}
