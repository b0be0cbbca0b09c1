"""Tokens of OIDC issuers: those that hold, those that are forged, and keys that come and go."""

import asyncio
import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives import serialization
from issuer_server import EC, NOW, RSA, RSA_2, http, public
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from pydantic import ValidationError

from atrium_common.errors import PermissionDenied, Unauthenticated, Unavailable
from atrium_gateway.auth.authenticator import Authenticator
from atrium_gateway.auth.issuer_rules import IssuerRules
from atrium_gateway.auth.tokens import TokenAuthority


async def refused(issuers, token, reason="TOKEN_INVALID"):
    with pytest.raises((Unauthenticated, PermissionDenied)) as caught:
        await issuers.check(token)
    assert caught.value.reason == reason


def raw(header, payload, signature=b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def payload_of(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
async def test_a_token_of_an_issuer_is_its_tenant(issuer, make_issuers, key):
    issuers = make_issuers()
    token = issuer.sign(key, roles=["developer"])
    assert issuers.knows(token)
    principal = await issuers.check(token)
    assert (principal.tenant, principal.subject, principal.key_id) == ("acme", "ann", None)
    assert (principal.roles, principal.scopes) == ({"developer"}, {"chat", "usage:read"})
    assert principal.expires_at.timestamp() == NOW + 600 + 30
    assert issuer.asked == ["/.well-known/openid-configuration", "/jwks"]


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": ...},
        {"exp": ...},
        {"exp": "tomorrow"},
        {"nbf": NOW + 31},
        {"iat": NOW + 31},
        {"iat": "now"},
        {"sub": ...},
        {"sub": ""},
        {"tenant": ...},
        {"tenant": "Acme Corp"},
        {"tenant": ["acme"]},
        {"roles": 7},
        {"scope": 7},
        {"head": {"typ": "JWS"}},
        {"head": {"typ": ...}},
        {"head": {"typ": 7}},
        {"head": {"kid": "unknown"}},
        {"head": {"kid": ...}, "key": RSA_2},
        {"head": {"kid": "ec-1"}},
        {"head": {"kid": "k" * 201}},
        {"head": {"crit": ["exp"], "exp": 1}},
        {"head": {"alg": "RS512"}},
        {"head": {"alg": "PS256"}},
        {"key": RSA_2, "head": {"kid": "rsa-1"}},
    ],
    ids=lambda changes: str({**changes, "key": "other"} if "key" in changes else changes),
)
async def test_a_token_that_lacks_or_falsifies_anything_does_not_hold(
    issuer, make_issuers, changes
):
    try:
        token = issuer.sign(**changes)
    except JoseError:  # it does not sign what it would not take
        head = {"typ": "at+jwt", "kid": "rsa-1", "alg": "RS256", **changes["head"]}
        token = raw(head, payload_of(issuer.sign()), b"x")
    await refused(make_issuers(), token)


async def test_times_hold_within_the_skew(issuer, make_issuers, clock):
    issuers = make_issuers()
    for changes in ({"exp": NOW - 29}, {"nbf": NOW + 29}, {"iat": NOW + 29}):
        assert await issuers.check(issuer.sign(**changes))
    await refused(issuers, issuer.sign(exp=NOW - 30), "TOKEN_EXPIRED")
    token = issuer.sign()
    clock.now += 600 + 30
    await refused(issuers, token, "TOKEN_EXPIRED")


async def test_forgeries_do_not_hold(issuer, make_issuers):
    good = issuer.sign()
    head, body, signature = good.split(".")
    claims = payload_of(good)
    pem = RSA.public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    jwk = json.dumps(public(RSA)).encode()
    richer = raw({}, {**claims, "tenant": "globex"}).split(".")[1]
    inlined = {"alg": "RS256", "typ": "at+jwt", "kid": "x", "jwk": public(RSA_2)}
    forged = [
        raw({"alg": "none", "typ": "at+jwt", "kid": "rsa-1"}, claims),
        raw({"alg": "None", "typ": "at+jwt", "kid": "rsa-1"}, claims, b"x"),
        raw({"typ": "at+jwt", "kid": "rsa-1"}, claims, b"x"),
        f"{head}.{richer}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-8]}",
        issuer.sign(RSA_2, head=inlined),
        issuer.sign(RSA_2, head={"kid": "rsa-1", "jku": f"{issuer.url}/jwks"}),
    ]
    for secret in (pem, jwk):
        confused = raw({"alg": "HS256", "typ": "at+jwt", "kid": "rsa-1"}, claims).rstrip(".")
        mac = hmac.digest(secret, confused.encode(), hashlib.sha256)
        forged.append(f"{confused}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")
    issuers = make_issuers()
    for token in forged:
        await refused(issuers, token)
    assert await issuers.check(good)
    for nonsense in ("", "a.b", "..", "é.é.é", "a" * 9000, head):
        assert not issuers.knows(nonsense)


@pytest.mark.parametrize(
    "key",
    [
        public(RSA, use="enc"),
        public(RSA, key_ops=["encrypt"]),
        public(RSA, alg="RS512"),
        public(RSA, kty="oct", k="AAAA"),
        public(RSA, n=RSA.as_dict()["n"][:172]),
        RSA.as_dict(private=True),
        public(RSA, n="A" * 100_000),
        public(RSA, e="A" * 1000),
        public(RSA, n=...),
        public(RSA, n=7),
        public(RSA, kid=["rsa-1"]),
        {"kty": "RSA"},
        7,
        None,
    ],
)
async def test_a_key_that_may_not_verify_does_not(issuer, make_issuers, key):
    issuer.keys = [key, public(EC)]
    issuers = make_issuers()
    await refused(issuers, issuer.sign(RSA))
    assert await issuers.check(issuer.sign(EC))


async def test_a_curve_of_another_name_does_not_verify(issuer, make_issuers):
    other = ECKey.generate_key("P-384", {"kid": "ec-1"})
    issuer.keys = [public(other), public(RSA)]
    await refused(make_issuers(), issuer.sign(EC))


async def test_only_listed_algorithms_and_types_hold(issuer, make_issuers):
    issuers = make_issuers(algorithms=("ES256",), types=("JWT", ""))
    await refused(issuers, issuer.sign(RSA, head={"typ": "JWT"}))
    for kind in ("JWT", "jwt", ...):
        assert await issuers.check(issuer.sign(EC, head={"typ": kind}))
    await refused(issuers, issuer.sign(EC, head={"typ": "at+jwt"}))
    assert await make_issuers().check(issuer.sign(head={"typ": "application/at+jwt"}))


async def test_a_token_without_a_key_id_takes_the_only_key_that_fits(issuer, make_issuers):
    assert await make_issuers().check(issuer.sign(head={"kid": ...}))
    issuer.keys = [public(RSA, kid=...), public(RSA_2, kid=...)]
    await refused(make_issuers(), issuer.sign(head={"kid": ...}))


async def test_a_new_key_is_found_and_a_withdrawn_one_forgotten(issuer, make_issuers, clock):
    issuers = make_issuers()
    assert await issuers.check(issuer.sign(RSA))
    issuer.keys = [public(RSA_2)]
    await refused(issuers, issuer.sign(RSA_2))
    clock.now += 10
    assert await issuers.check(issuer.sign(RSA_2))
    await refused(issuers, issuer.sign(RSA))


async def test_a_withdrawn_key_ends_without_any_new_one_being_named(issuer, make_issuers, clock):
    issuers = make_issuers()
    assert await issuers.check(issuer.sign(RSA))
    issuer.keys = [public(EC)]
    clock.now += 300
    assert await issuers.check(issuer.sign(RSA))  # known still, and looked at behind its back
    async with asyncio.timeout(5):
        while len(issuer.asked) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    await refused(issuers, issuer.sign(RSA))


async def test_a_flood_of_unknown_keys_does_not_flood_the_issuer(issuer, make_issuers, clock):
    issuers = make_issuers()
    issuer.pause = 0.05
    tokens = [issuer.sign(head={"kid": f"kid-{number}"}) for number in range(50)]
    results = await asyncio.gather(
        *(issuers.check(token) for token in tokens), return_exceptions=True
    )
    assert all(isinstance(result, Unauthenticated) for result in results)
    assert issuer.asked.count("/jwks") == 1
    clock.now += 9.9
    for token in tokens:
        await refused(issuers, token)
    assert issuer.asked.count("/jwks") == 1
    assert await issuers.check(issuer.sign())
    clock.now += 0.1
    await refused(issuers, tokens[0])
    assert issuer.asked.count("/jwks") == 2


@pytest.mark.parametrize(
    "body",
    [
        http(b"", status="500 Internal Server Error"),
        http(b"", status="302 Found", more="Location: /elsewhere\r\n"),
        http(b"{" * 200_000),
        http(b"[" * 200_000),
        http(b'{"keys": [' + b'{"kty": "RSA"},' * 70 + b"{}]}"),
        http(b'{"keys": {}}'),
        http(b"[]"),
        http(b'{"keys": "' + b"a" * (300 << 10) + b'"}'),
        http(b"x", more="Content-Encoding: gzip\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"nonsense\r\n\r\n",
        b"",
    ],
    ids=lambda body: repr(body[:40]) if isinstance(body, bytes) else "",
)
async def test_while_keys_are_not_to_be_had_the_known_ones_are_kept(
    issuer, make_issuers, clock, body
):
    issuers = make_issuers()
    issuer.body = body
    with pytest.raises(Unavailable):
        await issuers.check(issuer.sign())
    issuer.body = None
    clock.now += 10
    assert await issuers.check(issuer.sign())
    issuer.body = body
    clock.now += 400
    assert await issuers.check(issuer.sign())
    clock.now += 10
    with pytest.raises(Unavailable):
        await issuers.check(issuer.sign(RSA_2))
    assert await issuers.check(issuer.sign())


async def test_an_issuer_that_hangs_costs_a_bounded_time_once(issuer, make_issuers):
    issuer.pause = 5
    issuers = make_issuers()
    async with asyncio.timeout(2):
        for _ in range(3):
            with pytest.raises(Unavailable):
                await issuers.check(issuer.sign())


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example"},
        {"jwks_uri": "http://keys.example/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": 7},
    ],
    ids=str,
)
async def test_a_discovery_document_that_leads_astray_is_not_followed(
    issuer, make_issuers, document
):
    issuer.document = document
    with pytest.raises(Unavailable):
        await make_issuers().check(issuer.sign())
    assert issuer.asked == ["/.well-known/openid-configuration"]
    assert await make_issuers(jwks_url=f"{issuer.url}/jwks").check(issuer.sign())


async def test_an_issuer_speaks_for_its_tenants_alone(issuer, make_issuers):
    await refused(make_issuers(), issuer.sign(tenant="globex"), "ISSUER_TENANT")
    anyone = make_issuers(tenants=("*",))
    assert (await anyone.check(issuer.sign(tenant="globex"))).tenant == "globex"


async def test_claims_are_read_by_the_rules(issuer, make_issuers):
    issuers = make_issuers(
        tenant_claim="https://atrium.example/tenant",
        roles_claim="realm_access.roles",
        roles={"atrium-admins": "admin", "everyone": "viewer"},
        scope_claim=None,
    )
    principal = await issuers.check(
        issuer.sign(
            **{"https://atrium.example/tenant": "acme", "tenant": "globex"},
            realm_access={"roles": ["atrium-admins", "admin", "owner"]},
        )
    )
    assert (principal.tenant, principal.roles, principal.scopes) == ("acme", {"admin"}, {"*"})


async def test_nobody_becomes_an_operator_unless_the_issuer_may_name_them(issuer, make_issuers):
    token = issuer.sign(roles="operator viewer root")
    assert (await make_issuers().check(token)).roles == {"viewer"}
    assert (await make_issuers(operators=True).check(token)).roles == {"viewer", "operator"}
    assert (await make_issuers(default_role="viewer").check(issuer.sign())).roles == {"viewer"}
    assert (await make_issuers().check(issuer.sign(scope=...))).scopes == frozenset()


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://issuer.example"},
        {"issuer": "ftp://127.0.0.1"},
        {"issuer": "https://user@issuer.example"},
        {"jwks_url": "http://issuer.example/jwks"},
        {"algorithms": ("HS256",)},
        {"algorithms": ()},
        {"tenants": ()},
        {"default_role": "operator"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_rules_that_are_not_safe_are_refused(changes):
    good = {"issuer": "https://issuer.example", "audience": "atrium", "tenants": ("acme",)}
    assert IssuerRules(**good)
    with pytest.raises(ValidationError):
        IssuerRules(**{**good, **changes})


async def test_the_authenticator_tells_its_own_tokens_from_an_issuers(issuer, make_issuers, clock):
    class Directory:
        stale, epoch = False, 0

        async def active_tenant(self, tenant):
            return type("Tenant", (), {"id": tenant, "weight": 3.0})

    secret = b"0123456789abcdef0123456789abcdef"
    tokens = TokenAuthority(secret=secret, issuer="atrium", audience="atrium", clock=clock)
    authenticator = Authenticator(
        directory=Directory(), tokens=tokens, pepper=secret, clock=clock, issuers=make_issuers()
    )
    token = issuer.sign()
    assert (await authenticator.authenticate(token)).weight == 3.0
    issuer.keys = []
    clock.now += 59
    assert await authenticator.authenticate(token)
    await refused_by(authenticator, raw({"alg": "HS256"}, {"iss": "https://x.example"}, b"x"))
    mac = raw({"alg": "HS256", "typ": "JWT"}, payload_of(token)).rstrip(".")
    signed = base64.urlsafe_b64encode(hmac.digest(secret, mac.encode(), hashlib.sha256))
    await refused_by(authenticator, f"{mac}.{signed.rstrip(b'=').decode()}")


async def refused_by(authenticator, token):
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(token)
