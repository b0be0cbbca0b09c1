"""Each request that a page shows with curl is one that the gateway takes."""

import itertools
import re
import shlex
from dataclasses import dataclass

import msgspec
import pytest

from atrium_common.catalogue import Catalogue
from atrium_gateway.api.path import Path
from atrium_gateway.api.routes import PATHS, STRUCTS
from tests.kit.pages import ROOT, pages

_GATEWAY = re.compile(r"(?:http://127\.0\.0\.1:8000|\$ATRIUM)(/[^?]*)")
BODIES = {struct.__name__: struct for struct in STRUCTS}


@dataclass(frozen=True)
class Asked:
    """One call of curl.

    Attributes:
        page: The page that shows it.
        method: Of HTTP.
        path: At the gateway.
        body: What `-d` holds; empty if it holds none.
        form: Names of the form's fields.
    """

    page: str
    method: str
    path: str
    body: str
    form: tuple[str, ...]


def read(page: str, line: str) -> Asked | None:
    """Reads a call; ``None`` if it is none of the gateway's."""
    words = shlex.split(line, comments=True)
    options = list(itertools.pairwise(words))
    addresses = [match[1] for word in words if (match := _GATEWAY.fullmatch(word.split("?")[0]))]
    if not addresses:
        return None
    body = next((value for name, value in options if name in ("-d", "--data")), "")
    form = tuple(value.partition("=")[0] for name, value in options if name == "-F")
    method = next((value for name, value in options if name == "-X"), "")
    sends = bool({"-d", "--data", "--data-binary", "-F"} & set(words))
    return Asked(page, method or ("POST" if sends else "GET"), addresses[0], body, form)


CALLS = [
    asked
    for page in pages()
    for line in page.code
    if line.strip().startswith("curl ") and "…" not in line
    if (asked := read(page.name, line))
]


def served(asked: Asked) -> Path | None:
    """The endpoint that takes a call."""
    for path in PATHS:
        pattern = re.sub(r"\{\w+:path\}", ".+", path.path)
        pattern = re.sub(r"\{\w+\}", "[^/]+", pattern)
        if path.method == asked.method and re.fullmatch(pattern, asked.path):
            return path
    return None


def test_enough_calls_are_found() -> None:
    assert sum(asked.page == "README.md" for asked in CALLS) >= 10
    assert len(CALLS) >= 20


@pytest.mark.parametrize("asked", CALLS, ids=lambda a: f"{a.page}-{a.method}-{a.path}")
def test_the_gateway_takes_it(asked: Asked) -> None:
    path = served(asked)
    assert path is not None
    content = path.operation.description.get("requestBody", {}).get("content", {})
    if asked.form:
        assert "multipart/form-data" in content
    if asked.body:
        struct = BODIES[content["application/json"]["schema"]["$ref"].rpartition("/")[2]]
        known = {field.encode_name for field in msgspec.structs.fields(struct)}
        assert set(msgspec.json.decode(asked.body)) <= known
        msgspec.json.decode(asked.body, type=struct)


def test_the_first_requests_name_models_of_the_starter_catalogue() -> None:
    catalogue = Catalogue.load(ROOT / "models/starter.yaml")
    known = {name for entry in catalogue for name in (entry.id, *entry.aliases)}
    bodies = [msgspec.json.decode(a.body) for a in CALLS if a.page == "README.md" and a.body]
    assert {body["model"] for body in bodies if "model" in body} <= known
