"""Fetching by URL over real sockets: what is refused, what is bounded, what is told."""

import asyncio
import gzip
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from egress_web import OPEN, TRAP, Names, ok, running_web
from prometheus_client import CollectorRegistry

from atrium_common.errors import InvalidArgument

PICTURE = b"\x89PNG" + bytes(range(256)) * 300
UNREACHABLE = "The address can't be reached, or does not answer in time."


async def fetch(fetcher, url, *, limit=1 << 20, seconds=10.0):
    return await fetcher.fetch(url, limit=limit, deadline=time.monotonic() + seconds)


async def refusal(fetcher, url, **how):
    with pytest.raises(InvalidArgument) as caught:
        await fetch(fetcher, url, **how)
    assert caught.value.field == "image_url"
    return caught.value


@pytest.fixture
def any_port(web):
    """Allows `files.test` at the server's port."""
    return f"files.test:{web.port}"


async def test_a_picture_is_fetched(web, fetcher, any_port):
    web.answers["/a.png?s=1"] = ok(PICTURE, "Content-Type: image/png")
    assert await fetch(fetcher(any_port), web.url("/a.png?s=1#part")) == PICTURE
    head = web.heads[0].decode().lower()
    assert head.startswith("get /a.png?s=1 http/1.1\r\n")
    assert f"host: files.test:{web.port}\r\n" in head
    assert "accept-encoding: identity\r\n" in head
    assert "cookie" not in head
    assert "authorization" not in head


@pytest.mark.parametrize("kind", ["", "Content-Type: application/octet-stream"])
async def test_chunks_and_untyped_files_are_taken(web, fetcher, any_port, kind):
    lines = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{kind and kind + chr(13) + chr(10)}"
    web.answers["/a"] = lines.encode() + b"\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert await fetch(fetcher(any_port), web.url("/a")) == b"abcde"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://files.test:{port}/a",
        "http://someone@files.test:{port}/a",
        "http://files.test:{port}@other.test/a",
        "http://other.test:{port}/a",
        "http://files.test/a",
        "http://127.0.0.1:{port}/a",
        "http://[::ffff:7f00:1]:{port}/a",
        "http://2130706433:{port}/a",
        "nonsense",
    ],
)
async def test_what_is_not_on_the_list_is_not_even_looked_up(web, fetcher, any_port, url):
    names = Names(files_test=[[OPEN]], other_test=[[OPEN]])
    error = await refusal(fetcher(any_port, names=names), url.format(port=web.port))
    assert error.reason == "URL_NOT_ALLOWED"
    assert (names.asked, web.heads) == ([], [])


@pytest.mark.parametrize(
    "addresses",
    [[TRAP], [OPEN, TRAP], ["8.8.8.8", TRAP], ["::ffff:127.0.0.2"], ["::1"], ["169.254.169.254"]],
)
async def test_one_private_address_of_a_name_refuses_it(web, fetcher, any_port, addresses):
    names = Names(files_test=[addresses])
    error = await refusal(fetcher(any_port, names=names), web.url("/a"))
    assert error.reason == "URL_NOT_ALLOWED"
    assert (web.heads, web.trapped) == ([], 0)


@pytest.mark.parametrize("host", ["127.0.0.2", "[::ffff:7f00:2]", "[::1]", "localhost", "0.0.0.0"])  # noqa: S104
async def test_a_private_address_is_refused_even_if_its_host_is_listed(web, fetcher, host):
    names = Names(localhost=[[TRAP]])
    place = f"{host}:{web.port}"
    for written in (place, place.replace("localhost", "LOCALHOST.")):
        error = await refusal(fetcher(place, names=names), f"http://{written}/a")
        assert error.reason == "URL_NOT_ALLOWED"
    assert web.trapped == 0


async def test_a_name_that_changes_its_address_after_the_check_gains_nothing(
    web, fetcher, any_port
):
    web.answers["/a"] = ok(PICTURE)
    names = Names(files_test=[[OPEN], [TRAP]])
    assert await fetch(fetcher(any_port, names=names), web.url("/a")) == PICTURE
    assert names.asked == ["files.test"]
    # The next request looks again, and sees the private address.
    error = await refusal(fetcher(any_port, names=names), web.url("/a"))
    assert error.reason == "URL_NOT_ALLOWED"
    assert web.trapped == 0


async def test_a_name_that_changes_its_address_between_two_hops_is_refused(web, fetcher, any_port):
    web.redirect("/a", "/b")
    names = Names(files_test=[[OPEN], [TRAP]])
    error = await refusal(fetcher(any_port, names=names), web.url("/a"))
    assert error.reason == "URL_NOT_ALLOWED"
    assert web.trapped == 0


@pytest.mark.parametrize(
    "to",
    [
        "http://inner.test:{port}/secret",
        "http://127.0.0.2:{port}/secret",
        "http://[::ffff:127.0.0.2]:{port}/secret",
        "//inner.test:{port}/secret",
        "file:///etc/passwd",
        "gopher://files.test:{port}/",
        "http://a@files.test:{port}/b",
        "http://files.test:1/b",
        "http://[/",
        "http://other.test:{port}/b",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
async def test_a_redirect_is_checked_like_the_first_address(web, fetcher, any_port, to):
    web.redirect("/a", to.format(port=web.port))
    names = Names(files_test=[[OPEN]], inner_test=[[TRAP]], other_test=[[OPEN]])
    rules = fetcher(any_port, f"inner.test:{web.port}", names=names)
    error = await refusal(rules, web.url("/a"))
    assert error.reason == "URL_NOT_ALLOWED"
    assert len(web.heads) == 1
    assert web.trapped == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_without_cookies(web, fetcher, any_port, status):
    web.redirect("/x/a", "../b", status=status, more="Set-Cookie: a=b\r\n")
    web.redirect("/b", web.url("/c"), status=status)
    web.answers["/c"] = ok(PICTURE)
    assert await fetch(fetcher(any_port), web.url("/x/a")) == PICTURE
    assert all(b"cookie" not in head.lower() for head in web.heads)


async def test_redirects_end(web, fetcher, any_port):
    web.redirect("/a", "/b")
    web.redirect("/b", "/a")
    error = await refusal(fetcher(any_port, max_redirects=3), web.url("/a"))
    assert error.reason == "URL_BAD_ANSWER"
    assert len(web.heads) == 4


async def test_a_file_over_the_limit_is_refused_by_its_length_and_while_it_comes(
    web, fetcher, any_port
):
    sent = 0

    async def endless(_, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"8000\r\n" + bytes(0x8000) + b"\r\n")
            sent += 0x8000
            await writer.drain()

    web.answers["/endless"] = endless
    web.answers["/told"] = b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n"
    web.answers["/fits"] = ok(bytes(100_000))
    limited = fetcher(any_port, max_bytes=100_000)
    for path in ("/endless", "/told"):
        error = await refusal(limited, web.url(path))
        assert (error.reason, "100000" in error.message) == ("URL_TOO_LARGE", True)
    async with asyncio.timeout(5):
        await web.closed.wait()
    assert sent < 16 << 20  # what sockets hold, not what it would send
    assert len(await fetch(limited, web.url("/fits"))) == 100_000
    assert (await refusal(limited, web.url("/fits"), limit=99_999)).reason == "URL_TOO_LARGE"


async def test_compressed_content_is_refused_unread(web, fetcher, any_port):
    bomb = gzip.compress(bytes(1 << 20))
    web.answers["/bomb"] = ok(bomb, "Content-Type: image/png", "Content-Encoding: gzip")
    error = await refusal(fetcher(any_port), web.url("/bomb"))
    assert error.reason == "URL_BAD_ANSWER"
    assert "compressed" in error.message


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nsecret", "404"),
        (b"HTTP/1.1 500 secret\r\nContent-Length: 6\r\n\r\nsecret", "500"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "304"),
        (ok(b"secret", "Content-Type: text/html; x=secret"), "no picture"),
        (ok(b"secret", "Content-Type: application/json"), "no picture"),
    ],
)
async def test_an_answer_that_is_no_file_is_named_and_not_shown(
    web, fetcher, any_port, answer, word
):
    web.answers["/a"] = answer
    error = await refusal(fetcher(any_port), web.url("/a"))
    assert error.reason == "URL_BAD_ANSWER"
    assert word in error.message
    assert "secret" not in error.message


async def silent(reader, writer):
    await reader.read()


async def drip(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def dripping_head(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-a: b\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def waiting_forever(reader, writer):
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def hang_up(reader, writer):
    writer.close()


BAD = {
    "silent": silent,
    "drip": drip,
    "dripping head": dripping_head,
    "hints": waiting_forever,
    "hangs up": hang_up,
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1 secret\r\n",
    "half a file": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "huge head": b"HTTP/1.1 200 OK\r\n" + b"a: " + b"b" * 300_000 + b"\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
}


@pytest.mark.parametrize("kind", sorted(BAD))
async def test_whatever_goes_wrong_on_the_way_looks_the_same(web, fetcher, any_port, kind):
    web.answers["/a"] = BAD[kind]
    error = await refusal(fetcher(any_port, seconds=0.4), web.url("/a"))
    assert (error.reason, error.message) == ("URL_UNREACHABLE", UNREACHABLE)


@pytest.mark.parametrize("case", ["no name", "refused", "deadline", "no certificate"])
async def test_so_does_what_is_not_there(web, fetcher, any_port, case):
    names = Names(files_test=[[]]) if case == "no name" else Names(files_test=[[OPEN]])
    web.answers["/a"] = silent
    url, host = web.url("/a"), any_port
    if case == "refused":
        url, host = "http://files.test:1/a", "files.test:1"
    if case == "no certificate":
        url = web.url("/a", scheme="https")
    seconds = 0.3 if case in ("deadline", "no certificate") else 10.0
    error = await refusal(fetcher(host, names=names), url, seconds=seconds)
    assert (error.reason, error.message) == ("URL_UNREACHABLE", UNREACHABLE)


async def test_the_next_address_is_tried_where_one_is_dead(web, fetcher, any_port):
    web.answers["/a"] = ok(PICTURE)
    names = Names(files_test=[["127.0.0.3", OPEN]])
    dialled = fetcher(any_port, names=names, private=["127.0.0.0/8"])
    assert await fetch(dialled, web.url("/a")) == PICTURE


async def test_a_slow_resolver_is_in_the_time(web, fetcher, any_port):
    async def never(name):
        await asyncio.Event().wait()

    error = await refusal(fetcher(any_port, names=never, seconds=0.1), web.url("/a"))
    assert error.reason == "URL_UNREACHABLE"


async def test_no_proxy_of_the_environment_is_used(web, fetcher, any_port, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://{TRAP}:{web.port}")
    web.answers["/a"] = ok(PICTURE)
    assert await fetch(fetcher(any_port), web.url("/a")) == PICTURE
    assert web.trapped == 0


async def test_so_many_at_once_and_no_more(web, fetcher, any_port):
    async def slow(_, writer):
        await asyncio.sleep(0.05)
        writer.write(ok(PICTURE))
        await writer.drain()

    web.answers["/a"] = slow
    few = fetcher(any_port, concurrency=2)
    found = await asyncio.gather(*(fetch(few, web.url("/a")) for _ in range(6)))
    assert found == [PICTURE] * 6
    assert web.most <= 2


async def test_a_caller_that_leaves_ends_the_connection(web, fetcher, any_port):
    web.answers["/a"] = silent
    task = asyncio.create_task(fetch(fetcher(any_port), web.url("/a")))
    async with asyncio.timeout(5):
        while not web.heads:  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.005)
        task.cancel()
        await web.closed.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_logs_and_metrics_name_the_host_and_nothing_more(web, fetcher, any_port):
    web.answers["/path?signature=secret"] = ok(PICTURE)
    registry = CollectorRegistry()
    metered = fetcher(any_port, registry=registry)
    with structlog.testing.capture_logs() as logs:
        await fetch(metered, web.url("/path?signature=secret"))
        await refusal(metered, "http://files.test:1/secret")
    assert [(line["host"], line["result"]) for line in logs] == [
        ("files.test", "ok"),
        ("", "url_not_allowed"),
    ]
    assert "secret" not in repr(logs)
    assert registry.get_sample_value("atrium_fetches_total", {"result": "ok"}) == 1
    assert registry.get_sample_value("atrium_fetches_total", {"result": "url_not_allowed"}) == 1


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context for a certificate of its own."""
    now, key = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    shape = serialization.PrivateFormat.PKCS8
    (folder / "both.pem").write_bytes(
        key.private_bytes(encoding, shape, plain) + certificate.public_bytes(encoding)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "both.pem")
    return server, ssl.create_default_context(cafile=str(folder / "both.pem"))


async def test_a_certificate_is_checked_against_the_name_not_the_address(fetcher, tmp_path):
    server, client = certified(tmp_path, "files.test")
    asked: list[str | None] = []
    server.sni_callback = lambda _, name, __: asked.append(name)
    async with running_web(server) as web:
        web.answers["/a"] = ok(PICTURE)
        web.redirect("/down", web.url("/a"))
        url, place = web.url("/a", scheme="https"), f"files.test:{web.port}"
        assert await fetch(fetcher(place, tls=client), url) == PICTURE
        assert asked == ["files.test"]
        # Nobody on the way may take the encryption away.
        error = await refusal(fetcher(place, tls=client), url.replace("/a", "/down"))
        assert error.reason == "URL_NOT_ALLOWED"
        other = fetcher(f"other.test:{web.port}", tls=client, names=Names(other_test=[[OPEN]]))
        error = await refusal(other, url.replace("files", "other"))
        assert (error.reason, error.message) == ("URL_UNREACHABLE", UNREACHABLE)
