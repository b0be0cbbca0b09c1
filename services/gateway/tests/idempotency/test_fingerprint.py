"""Two requests are the same if method, path, query, kind and body are; a form by its parts."""

import itertools

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrium_gateway.idempotency.fingerprint import Fingerprint

JSON = "application/json"


def fingerprint(body, content_type=JSON, *, cuts=(), **changed):
    asked = {"method": "POST", "path": "/p", "query": b"", **changed}
    made = Fingerprint(content_type=content_type, **asked)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        made.add(body[start:end])
    return made.digest()


def form(boundary, *, files, data=None):
    request = httpx.Request(
        "POST",
        "http://x",
        files=files,
        data=data,
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    return request.read(), request.headers["content-type"]


FILES = {"file": ("a.wav", b"RIFF\r\n--one\r\n\x00", "audio/wav")}


def test_what_makes_another_request():
    seen = [
        fingerprint(b"{}"),
        fingerprint(b"{ }"),
        fingerprint(b"{}", path="/q"),
        fingerprint(b"{}", query=b"a=1"),
        fingerprint(b"{}", method="PUT"),
        fingerprint(b"{}", "text/plain"),
        fingerprint(b""),
    ]
    assert len(set(seen)) == len(seen)
    assert fingerprint(b"{}", "Application/JSON; charset=utf-8") == fingerprint(b"{}")


def test_a_form_with_another_boundary_is_the_same():
    seen = {fingerprint(*form(name, files=FILES, data={"model": "m"})) for name in ("aa", "b-b")}
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("files", "data"),
    [
        ({"file": ("b.wav", *FILES["file"][1:])}, {"model": "m"}),
        ({"file": ("a.wav", b"other", "audio/wav")}, {"model": "m"}),
        ({"file": (*FILES["file"][:2], "audio/mpeg")}, {"model": "m"}),
        ({"mask": FILES["file"]}, {"model": "m"}),
        (FILES, {"model": "n"}),
        (FILES, {"model": ["m", "m"]}),
        (FILES, None),
    ],
)
def test_a_form_with_another_part_is_another_request(files, data):
    first = fingerprint(*form("aa", files=FILES, data={"model": "m"}))
    assert fingerprint(*form("aa", files=files, data=data)) != first


@pytest.mark.parametrize("boundary", ["aa", "", "x" * 300])
def test_what_is_no_form_counts_by_its_bytes(boundary):
    kind = f"multipart/form-data; boundary={boundary}"
    assert fingerprint(b"junk", kind) == fingerprint(b"junk", kind)
    assert fingerprint(b"junk", kind) != fingerprint(b"junks", kind)
    broken = form("aa", files=FILES)[0][:-8]  # without its last boundary
    assert fingerprint(broken, kind) != fingerprint(broken[:-1], kind)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=20), st.binary(max_size=200), st.booleans())
def test_pieces_do_not_matter(cuts, data, as_form):
    if as_form:
        body, kind = form("bound", files={"file": ("f", data)}, data={"a": "1"})
        other = form("other-bound", files={"file": ("f", data)}, data={"a": "1"})
        assert fingerprint(body, kind, cuts=cuts) == fingerprint(*other)
    else:
        assert fingerprint(data, cuts=cuts) == fingerprint(data)
