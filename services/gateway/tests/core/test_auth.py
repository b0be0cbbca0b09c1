"""Who may come in: tokens that hold, tokens that are forged, keys, blocks and revocations."""

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from atrium_common.errors import PermissionDenied, Unauthenticated, Unavailable
from atrium_gateway.auth.authenticator import Authenticator
from atrium_gateway.auth.claims import is_name
from atrium_gateway.auth.keys import make_key
from atrium_gateway.auth.tokens import TokenAuthority, TokenClaims
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.tenants.domain import ApiKey, Tenant

SECRET = b"0123456789abcdef0123456789abcdef"
PEPPER = b"pepper-pepper-pepper-pepper-pepp"
NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


class Source:
    """A database that a test changes and takes away."""

    def __init__(self) -> None:
        self.tenants: dict[str, Tenant] = {}
        self.keys: dict[str, ApiKey] = {}
        self.changes = 0
        self.queries = 0
        self.away = False

    def _ask(self) -> None:
        self.queries += 1
        if self.away:
            raise OSError("the database is away")

    async def version(self) -> int:
        self._ask()
        return self.changes

    async def tenant(self, tenant_id: str) -> Tenant | None:
        self._ask()
        return self.tenants.get(tenant_id)

    async def key(self, key_id: str) -> ApiKey | None:
        self._ask()
        return self.keys.get(key_id)

    def add_tenant(self, tenant_id: str, *, blocked: bool = False, weight: float = 1.0) -> None:
        self.tenants[tenant_id] = Tenant(
            id=tenant_id,
            name=tenant_id,
            blocked=blocked,
            unlimited=False,
            weight=weight,
            limits=(),
            created_at=NOW,
        )
        self.changes += 1

    def add_key(self, tenant: str = "acme", **changes: object) -> str:
        made = make_key(PEPPER)
        fields: dict[str, object] = {
            "id": made.id,
            "tenant": tenant,
            "name": "",
            "digest": made.digest,
            "scopes": frozenset({"*"}),
            "roles": frozenset(),
            "created_at": NOW,
            "expires_at": None,
            "revoked_at": None,
        }
        self.keys[made.id] = ApiKey(**{**fields, **changes})
        self.changes += 1
        return made.text


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    made = Source()
    made.add_tenant("acme", weight=2.5)
    return made


@pytest.fixture
def tokens(clock: Clock) -> TokenAuthority:
    return TokenAuthority(secret=SECRET, issuer="atrium", audience="atrium", clock=clock)


@pytest.fixture
def authenticator(source: Source, tokens: TokenAuthority, clock: Clock) -> Authenticator:
    return Authenticator(
        directory=Directory(source, clock=clock), tokens=tokens, pepper=PEPPER, clock=clock
    )


def claims(**changes: object) -> dict[str, object]:
    good: dict[str, object] = {
        "iss": "atrium",
        "aud": "atrium",
        "sub": "ann",
        "tenant": "acme",
        "exp": int(NOW.timestamp()) + 600,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def signed(payload: dict[str, object], secret: bytes = SECRET, **header: object) -> str:
    return jwt.encode({"alg": "HS256"} | header, payload, OctKey.import_key(secret))


def raw(header: dict[str, object], payload: dict[str, object], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


async def test_a_minted_token_is_its_tenant(authenticator, tokens):
    token = tokens.mint(
        TokenClaims(
            tenant="acme",
            subject="ann",
            lifetime=timedelta(minutes=5),
            scopes=frozenset({"chat"}),
            roles=frozenset({"admin"}),
        )
    )
    principal = await authenticator.authenticate(token)
    assert (principal.tenant, principal.subject, principal.weight) == ("acme", "ann", 2.5)
    assert principal.roles == {"admin"}
    assert principal.may("chat")
    assert not principal.may("embedding")
    assert principal.expires_at == NOW + timedelta(minutes=5)


async def test_a_token_without_scope_allows_everything_an_empty_one_nothing(authenticator):
    assert (await authenticator.authenticate(signed(claims()))).may("chat")
    assert not (await authenticator.authenticate(signed(claims(scope="")))).may("chat")


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other"},
        {"iss": ...},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": ...},
        {"exp": ...},
        {"exp": int(NOW.timestamp())},
        {"exp": int(NOW.timestamp()) - 1},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": 1e300},
        {"exp": -1},
        {"nbf": int(NOW.timestamp()) + 60},
        {"iat": int(NOW.timestamp()) + 60},
        {"sub": ...},
        {"sub": 7},
        {"sub": ""},
        {"sub": "a\0"},
        {"tenant": "a\0"},
        {"tenant": ...},
        {"tenant": ["acme"]},
        {"tenant": "nobody"},
        {"roles": "admin"},
        {"scope": ["chat"]},
    ],
    ids=str,
)
async def test_a_token_that_lacks_or_falsifies_a_claim_does_not_hold(authenticator, changes):
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(signed(claims(**changes)))


def test_a_name_is_text_that_can_be_stored():
    assert is_name("ünn€ 😀")
    for value in ("", "a" * 201, "a\0", "\ud800", 7, None, ["a"]):
        assert not is_name(value)


async def test_a_token_made_for_something_else_does_not_hold(authenticator):
    for kind in ("JWT", "jwt", "at+jwt", "application/at+jwt"):
        assert (await authenticator.authenticate(signed(claims(), typ=kind))).subject == "ann"
    for kind in ("logout+jwt", "secevent+jwt", "JOSE", "jwt "):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(signed(claims(sub="b"), typ=kind))


def forgeries() -> dict[str, str]:
    head, body, signature = signed(claims()).split(".")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    confused = raw({"alg": "HS256"}, claims()).rstrip(".")
    confused_mac = hmac.digest(public, confused.encode(), hashlib.sha256)
    hs512 = hmac.digest(SECRET, b"x", hashlib.sha512)
    richer = base64.urlsafe_b64encode(json.dumps(claims(tenant="globex")).encode()).decode()
    return {
        "alg none": raw({"alg": "none"}, claims()),
        "alg None with a signature": raw({"alg": "None"}, claims(), b"x"),
        "no alg": raw({}, claims(), b"x"),
        "another secret": signed(claims(), b"another secret, as long as the good one"),
        "an empty signature": f"{head}.{body}.",
        "a cut signature": f"{head}.{body}.{signature[:-4]}",
        "claims of another token": f"{head}.{richer.rstrip('=')}.{signature}",
        "HS512": raw({"alg": "HS512"}, claims(), hs512),
        "RS256": jwt.encode({"alg": "RS256"}, claims(), RSAKey.import_key(private)),
        "HS256 over a public key": confused
        + "."
        + base64.urlsafe_b64encode(confused_mac).rstrip(b"=").decode(),
        "a critical header": raw({"alg": "HS256", "crit": ["exp"]}, claims(), b"x"),
        "an inlined key": raw({"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}}, claims(), b"x"),
        "five parts": ".".join([head, "", body, body, signature]),
        "two parts": f"{head}.{body}",
        "not base64": "ä.ö.ü",
        "a lone surrogate": "\ud800",
        "claims that are a list": raw({"alg": "HS256"}, [], b"x"),  # type: ignore[arg-type]
        "only dots": "..",
        "nothing": "",
        "far too long": "a" * 10_000,
    }


FORGERIES = forgeries()


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forged_token_does_not_hold(authenticator, source, name):
    source.add_tenant("globex")
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(FORGERIES[name])
    assert len(caught.value.message) < 80


async def test_a_token_ends_at_its_second_even_when_it_was_just_used(authenticator, clock):
    token = signed(claims(exp=int(NOW.timestamp()) + 10))
    await authenticator.authenticate(token)
    clock.now += 9.9
    await authenticator.authenticate(token)
    clock.now += 0.1
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(token)
    assert caught.value.reason == "TOKEN_EXPIRED"


async def test_a_key_is_its_tenant_and_carries_its_scopes(authenticator, source):
    text = source.add_key(scopes=frozenset({"chat"}))
    principal = await authenticator.authenticate(text)
    assert principal.tenant == "acme"
    assert principal.key_id in text
    assert principal.subject == f"key:{principal.key_id}"
    assert principal.may("chat")
    assert not principal.may("transcription")


async def test_a_key_that_differs_anywhere_does_not_hold(authenticator, source):
    text = source.add_key()
    other = source.add_key()
    swapped = other[: len("atr_") + 12] + text[len("atr_") + 12 :]
    flipped = text[:-1] + ("a" if text[-1] != "a" else "b")
    for wrong in (swapped, flipped, text + "a", text[:-1], text.upper(), "atr_", "atr_a_b"):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(wrong)
    assert await authenticator.authenticate(text)


async def test_a_revoked_key_is_refused_within_a_second(authenticator, source, clock):
    text = source.add_key()
    key_id = (await authenticator.authenticate(text)).key_id
    source.keys[key_id] = ApiKey(
        **{
            name: getattr(source.keys[key_id], name)
            for name in ApiKey.__dataclass_fields__
            if name != "revoked_at"
        },
        revoked_at=NOW,
    )
    source.changes += 1
    clock.now += 1.0
    for _ in range(2):
        with pytest.raises(Unauthenticated) as caught:
            await authenticator.authenticate(text)
        assert caught.value.reason == "KEY_REVOKED"


async def test_an_expired_key_is_refused(authenticator, source, clock):
    text = source.add_key(expires_at=NOW + timedelta(seconds=5))
    await authenticator.authenticate(text)
    clock.now += 5
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(text)


async def test_a_blocked_tenant_is_refused_within_a_second_by_every_credential(
    authenticator, source, clock
):
    key, token = source.add_key(), signed(claims())
    await authenticator.authenticate(key)
    await authenticator.authenticate(token)
    source.add_tenant("acme", blocked=True)
    clock.now += 1.0
    for credential in (key, token):
        with pytest.raises(PermissionDenied) as caught:
            await authenticator.authenticate(credential)
        assert caught.value.reason == "TENANT_BLOCKED"
    source.add_tenant("acme")
    clock.now += 1.0
    assert await authenticator.authenticate(key)


async def test_a_new_key_works_though_it_was_asked_for_before(authenticator, source, clock):
    text = source.add_key()
    key = source.keys.pop(text.split("_")[1])
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(text)
    source.keys[key.id] = key
    source.changes += 1
    clock.now += 1.0
    assert await authenticator.authenticate(text)


async def test_while_the_database_is_away_known_credentials_work_and_others_get_503(
    authenticator, source, clock
):
    known, unknown = source.add_key(), source.add_key()
    await authenticator.authenticate(known)
    source.away = True
    for _ in range(3):
        clock.now += 30
        assert await authenticator.authenticate(known)
        with pytest.raises(Unavailable):
            await authenticator.authenticate(unknown)
    source.away = False
    clock.now += 1
    assert await authenticator.authenticate(unknown)


async def test_a_known_credential_costs_no_query_and_little_time(authenticator, source):
    text = source.add_key()
    await authenticator.authenticate(text)
    before = source.queries
    started = time.process_time()
    for _ in range(2000):
        await authenticator.authenticate(text)
    assert source.queries == before
    assert (time.process_time() - started) / 2000 < 100e-6


def test_two_keys_never_look_alike_and_their_digest_needs_the_pepper():
    made = [make_key(PEPPER) for _ in range(100)]
    assert len({key.text for key in made}) == len({key.id for key in made}) == 100
    assert all(key.text not in repr(key.digest) for key in made)
    assert len(made[0].text) == 4 + 12 + 1 + 52
