"""API keys: how they are made, split and kept; the authenticator and the CLI use it.

A key is ``atr_<id>_<secret>``: 12 and 52 characters of ``a-z 2-7``, 256 random bits in
the secret. Only an HMAC-SHA256 of it under the server's pepper is stored, so that a
stolen database holds nothing to guess against.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

KEY_PREFIX = "atr_"
_ID = re.compile(r"[a-z2-7]{12}")
_PATTERN = re.compile(r"atr_([a-z2-7]{12})_([a-z2-7]{52})")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made.

    Attributes:
        id: Its public part.
        text: The whole key; shown once and never stored.
        digest: What is stored.
    """

    id: str
    text: str
    digest: bytes


def make_key(pepper: bytes) -> NewKey:
    """Makes a random key."""
    return _with_secret(_base32(secrets.token_bytes(8))[:12], pepper)


def renew_key(key_id: str, pepper: bytes) -> NewKey | None:
    """Makes another secret for a key; ``None`` if `key_id` can be no key's."""
    return _with_secret(key_id, pepper) if _ID.fullmatch(key_id) else None


def _with_secret(key_id: str, pepper: bytes) -> NewKey:
    text = f"{KEY_PREFIX}{key_id}_{_base32(secrets.token_bytes(32))}"
    return NewKey(key_id, text, digest_key(text, pepper))


def key_id_of(text: str) -> str | None:
    """The public part of a well-formed key, else ``None``."""
    match = _PATTERN.fullmatch(text)
    return match.group(1) if match else None


def digest_key(text: str, pepper: bytes) -> bytes:
    """What is stored of a key: 32 bytes."""
    return hmac.digest(pepper, text.encode(), hashlib.sha256)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
