"""The promises of pulling from the hub: gone on with, checked, atomic, and discreet.

The hub is a stand-in on this machine that speaks its protocol (`atrium_common.testing.hub`).
"""

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrium_common.catalogue import HubSource, ModelEntry, WeightFile
from atrium_common.testing.hub import HubStandIn
from atrium_common.weights import Progress, WeightsError, WeightStore, space
from atrium_common.weights.hub_options import DEFAULT_ENDPOINT, HubOptions

BIG = random.Random(7).randbytes(100_000)  # noqa: S311  # no secret
SMALL = b'{"model_type": "tiny"}'
FILES = {"model.safetensors": BIG, "config.json": SMALL, "sub/tokenizer.json": SMALL * 100}


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    """A hub with one repository."""
    with HubStandIn(files=dict(FILES)).serving() as hub:
        yield hub


def options(hub: HubStandIn, *, attempts: int = 1, token: str | None = None) -> HubOptions:
    """As an operator sets it, without the waits."""
    return HubOptions(
        endpoint=hub.endpoint, token=token, attempts=attempts, backoff_seconds=0, jobs=2
    )


def entry(hub: HubStandIn, *, digests: bool = True, **source: Any) -> ModelEntry:
    """A catalogue entry for the hub's files, with their digests or with what the hub says.

    Fields of the source are of any type: pydantic checks them.
    """
    files = [
        WeightFile(name=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in FILES.items()
    ]
    fields: dict[str, object] = {"files": files} if digests else {"unverified": True}
    return ModelEntry(
        id="tiny",
        service="llm",
        capabilities=("chat",),
        engine="fake",
        sources=(
            HubSource.model_validate(
                {"kind": "hub", "repository": hub.repository, "revision": hub.revision}
                | fields
                | source
            ),
        ),
    )


def holds(folder: Path) -> bool:
    """Tells whether a folder has the files, and nothing else."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    return found == FILES


def weights_in(root: Path) -> list[Path]:
    """Lists what a pull has left, its empty locks aside."""
    return [path for path in root.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize("digests", [True, False])
def test_a_pull_brings_what_the_catalogue_says(
    hub: HubStandIn, tmp_path: Path, digests: bool
) -> None:
    store = WeightStore(tmp_path / "models", hub=options(hub))
    told: list[Progress] = []
    tiny = entry(hub, digests=digests)
    folder = store.ensure(tiny, told.append)
    assert holds(folder)
    assert store.verify(tiny)
    assert told[-1] == Progress("tiny", "ready")
    fetched = [step.done for step in told if step.stage == "fetch"]
    assert fetched[-1] == sum(map(len, FILES.values()))
    assert weights_in(tmp_path / "models" / ".partial") == []
    asked_for_list = any(asked.path.startswith("/api/") for asked in hub.asked)
    assert asked_for_list is not digests


def test_patterns_choose_files(hub: HubStandIn, tmp_path: Path) -> None:
    hub.files |= {"model.bin": b"\x80\x02}q" + BIG, "old.pth": BIG, ".gitattributes": SMALL}
    hub.files["manifest.json"] = SMALL
    tiny = entry(hub, digests=False, allow=["*.json", "*.safetensors"])
    assert holds(WeightStore(tmp_path, hub=options(hub)).ensure(tiny))


@settings(max_examples=8, deadline=None)
@given(cut=st.integers(min_value=1, max_value=len(BIG) - 1))
def test_a_pull_that_was_cut_goes_on_where_it_stopped(cut: int) -> None:
    with (
        TemporaryDirectory() as root,
        HubStandIn(files=dict(FILES)).serving() as hub,
    ):
        store = WeightStore(Path(root), hub=options(hub))
        tiny = entry(hub)
        hub.cuts["model.safetensors"].append(cut)
        with pytest.raises(WeightsError) as failure:
            store.ensure(tiny)
        assert failure.value.reason == "FETCH_FAILED"
        assert store.locate(tiny) is None
        hub.forget()
        assert holds(store.ensure(tiny))
        assert hub.sent["model.safetensors"] == len(BIG) - cut
        assert {asked.first for asked in hub.asked if asked.host == "storage"} <= {0, cut}


def test_cuts_and_trouble_at_the_hub_are_waited_out(hub: HubStandIn, tmp_path: Path) -> None:
    hub.cuts["model.safetensors"] += [10_000, 1, 20_000, 30_000]
    hub.statuses += [503, 429, 500]
    store = WeightStore(tmp_path, hub=options(hub, attempts=4))
    assert holds(store.ensure(entry(hub)))
    assert hub.sent["model.safetensors"] == len(BIG)


def test_a_hub_without_ranges_sends_all_again(hub: HubStandIn, tmp_path: Path) -> None:
    hub.cuts["model.safetensors"].append(50_000)
    hub.ranges = False
    assert holds(WeightStore(tmp_path, hub=options(hub, attempts=3)).ensure(entry(hub)))
    assert hub.sent["model.safetensors"] == len(BIG) + 50_000


def test_what_belongs_to_another_file_is_not_gone_on_with(hub: HubStandIn, tmp_path: Path) -> None:
    store = WeightStore(tmp_path, hub=options(hub, attempts=2))
    tiny = entry(hub, digests=False)
    hub.files["model.safetensors"] = bytes(len(BIG))
    hub.cuts["model.safetensors"] += [40_000, 0, 0]
    with pytest.raises(WeightsError):
        store.ensure(tiny)
    hub.files["model.safetensors"] = BIG
    hub.cuts.clear()
    assert holds(store.ensure(tiny))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("digests", [True, False])
def test_a_flipped_byte_is_refused_and_removed(
    hub: HubStandIn, tmp_path: Path, name: str, digests: bool
) -> None:
    store = WeightStore(tmp_path, hub=options(hub, attempts=3))
    tiny = entry(hub, digests=digests)
    hub.flips[name] = 7
    with pytest.raises(WeightsError, match=name) as failure:
        store.ensure(tiny)
    assert failure.value.reason == "BAD_DIGEST"
    assert store.locate(tiny) is None
    assert not any(path.name.startswith(Path(name).name) for path in weights_in(tmp_path))
    hub.flips.clear()
    assert holds(store.ensure(tiny))


def test_damage_to_what_had_arrived_is_found(hub: HubStandIn, tmp_path: Path) -> None:
    store = WeightStore(tmp_path, hub=options(hub))
    hub.cuts["model.safetensors"].append(50_000)
    with pytest.raises(WeightsError):
        store.ensure(entry(hub))
    (part,) = tmp_path.rglob("model.safetensors.part")
    part.write_bytes(bytes(50_000))
    with pytest.raises(WeightsError) as failure:
        store.ensure(entry(hub))
    assert failure.value.reason == "BAD_DIGEST"
    assert holds(store.ensure(entry(hub)))


CATALOGUE = """
models:
  - id: tiny
    service: llm
    capabilities: [chat]
    engine: fake
    sources:
      - {{kind: hub, repository: {hub.repository}, revision: {hub.revision}, unverified: true}}
"""


def process(
    hub: HubStandIn, root: Path, setup: Callable[[], None] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a pull in a process of its own, as `make run` does."""
    catalogue = root.parent / "catalogue.yaml"
    catalogue.write_text(CATALOGUE.format(hub=hub))
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "atrium_common.weights", "ensure"),
            *("--catalogue", str(catalogue), "--models-dir", str(root)),
        ],
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "NO_PROXY": "127.0.0.1"},
        stderr=subprocess.PIPE,
        preexec_fn=setup,  # limits of the child alone
    )


def test_two_pulls_at_once_fetch_once(hub: HubStandIn, tmp_path: Path) -> None:
    root = tmp_path / "models"
    hub.pause_at = 8192
    pulls = [process(hub, root), process(hub, root)]
    assert hub.paused.wait(30)
    hub.go_on.set()
    for pull in pulls:
        _, said = pull.communicate(timeout=60)
        assert pull.returncode == 0, said.decode()
    store = WeightStore(root)
    assert store.verify(entry(hub, digests=False))
    assert hub.sent["model.safetensors"] == len(BIG)


def test_a_killed_pull_is_gone_on_with(hub: HubStandIn, tmp_path: Path) -> None:
    root = tmp_path / "models"
    hub.pause_at = 65_536
    with process(hub, root) as killed:
        assert hub.paused.wait(30)
        parts = root.glob(".partial/*/parts/model.safetensors.part")
        while not any(part.stat().st_size for part in parts):
            time.sleep(0.01)
            parts = root.glob(".partial/*/parts/model.safetensors.part")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert killed.stderr is not None
    killed.stderr.close()
    store = WeightStore(root, hub=options(hub))
    tiny = entry(hub, digests=False)
    assert store.locate(tiny) is None
    hub.pause_at = 0
    hub.go_on.set()
    hub.forget()
    assert holds(store.ensure(tiny))
    assert 0 < hub.sent["model.safetensors"] < len(BIG)


def interruptible() -> None:
    """As in a terminal; what a shell runs in the background ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_pull_that_is_interrupted_says_so_at_once(hub: HubStandIn, tmp_path: Path) -> None:
    root = tmp_path / "models"
    hub.pause_at = 65_536  # and silent from then on: nobody waits for the connection to time out
    with process(hub, root, interruptible) as pull:
        assert hub.paused.wait(30)
        pull.send_signal(signal.SIGINT)
        _, said = pull.communicate(timeout=20)
    assert pull.returncode == 130
    assert b"stopped; what has arrived" in said
    assert b"Traceback" not in said
    assert not hub.go_on.is_set()


def test_a_full_disk_leaves_nothing_behind(hub: HubStandIn, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    root = tmp_path / "models"
    with process(hub, root, limit) as pull:
        _, said = pull.communicate(timeout=60)
    assert pull.returncode == 1
    assert b"no space left" in said
    assert weights_in(root) == []
    assert holds(WeightStore(root, hub=options(hub)).ensure(entry(hub, digests=False)))


def test_space_is_asked_for_before_the_first_byte(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "_SPARE", 1 << 60)
    with pytest.raises(WeightsError, match=r"MiB of disk are needed, \d+ MiB are free") as failure:
        WeightStore(tmp_path, hub=options(hub)).ensure(entry(hub, digests=False))
    assert failure.value.reason == "NO_SPACE"
    assert hub.sent == {}
    assert weights_in(tmp_path) == []


def test_offline_nobody_is_asked(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = entry(hub)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    for variable in ("ATRIUM_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            with pytest.raises(WeightsError, match=variable) as failure:
                WeightStore(tmp_path).ensure(tiny)
            assert failure.value.reason == "NO_NETWORK"
    assert hub.asked == []
    folder = WeightStore(tmp_path).ensure(tiny)
    monkeypatch.setenv("ATRIUM_OFFLINE", "1")
    assert WeightStore(tmp_path).ensure(tiny) == folder


def test_the_token_goes_to_the_hub_alone(hub: HubStandIn, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    told: list[Progress] = []
    opened = options(hub, token="hf_secret")
    assert "hf_secret" not in repr(opened)
    WeightStore(tmp_path, hub=opened).ensure(entry(hub, digests=False), told.append)
    by_host = {
        host: {asked.authorization for asked in hub.asked if asked.host == host}
        for host in ("hub", "storage")
    }
    assert by_host == {"hub": {"Bearer hf_secret"}, "storage": {""}}


def test_a_repository_is_found_under_its_former_name(hub: HubStandIn, tmp_path: Path) -> None:
    hub.former, hub.token = "former/name", "hf_secret"
    tiny = entry(hub, digests=False, repository="former/name")
    store = WeightStore(tmp_path, hub=options(hub, token="hf_secret"))
    assert holds(store.ensure(tiny))


@pytest.mark.parametrize("token", [None, "hf_of_somebody_else"])
def test_a_closed_repository_says_what_to_do(
    hub: HubStandIn, tmp_path: Path, token: str | None
) -> None:
    hub.token = "hf_secret"
    with pytest.raises(WeightsError, match="accept its terms") as failure:
        WeightStore(tmp_path, hub=options(hub, token=token)).ensure(entry(hub))
    assert failure.value.reason == "NO_ACCESS"
    assert "HF_TOKEN" in failure.value.message
    assert "\n" not in failure.value.message
    paths = [asked.path for asked in hub.asked]
    assert len(set(paths)) == len(paths), "a refusal is not repeated"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"repository": "owner/other"}, "NO_ACCESS"),
        ({"files": [{"name": "gone.safetensors"}], "unverified": True}, "MISSING_FILE"),
        ({"files": [{"name": "gone.json", "sha256": "0" * 64, "size": 9}]}, "MISSING_FILE"),
        ({"allow": ["*.gguf"], "files": (), "unverified": True}, "MISSING_FILE"),
    ],
    ids=["repository", "listed", "with-digest", "pattern"],
)
def test_what_the_hub_lacks_is_told(
    hub: HubStandIn, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(WeightsError) as failure:
        WeightStore(tmp_path, hub=options(hub)).ensure(entry(hub, digests=True, **change))
    assert failure.value.reason == reason


def test_a_hub_that_is_away_is_told(hub: HubStandIn, tmp_path: Path) -> None:
    away = HubOptions(endpoint="http://127.0.0.1:9", attempts=2, backoff_seconds=0)
    with pytest.raises(WeightsError, match="no network") as failure:
        WeightStore(tmp_path, hub=away).ensure(entry(hub))
    assert failure.value.reason == "NO_NETWORK"


PICKLE = b"\x80\x02}q\x00." + bytes(2000)


def test_pickles_need_a_reason(hub: HubStandIn, tmp_path: Path) -> None:
    store = WeightStore(tmp_path, hub=options(hub))
    hub.files = {"model.bin": PICKLE}
    with pytest.raises(WeightsError, match="pickle") as failure:
        store.ensure(entry(hub, digests=False, allow=["*.bin"]))
    assert failure.value.reason == "UNSAFE_FORMAT"
    assert weights_in(tmp_path) == []
    reasoned = entry(hub, digests=False, allow=["*.bin"], pickle_reason="a test")
    assert (store.ensure(reasoned) / "model.bin").read_bytes() == PICKLE
    # CTranslate2's file of that name is data.
    hub.files = {"model.bin": b"\x06\0\0\0\x0b\0WhisperSpec\0" + BIG}
    other = entry(hub, digests=False, allow=["model.bin"])
    assert store.ensure(other).is_dir()


def test_a_complete_model_is_only_read(hub: HubStandIn, tmp_path: Path) -> None:
    root = tmp_path / "models"
    tiny = entry(hub)
    WeightStore(root, hub=options(hub)).ensure(tiny)

    def snapshot() -> dict[str, int]:
        paths = [root, *root.rglob("*")]
        return {str(path): path.stat().st_mtime_ns for path in paths}

    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = snapshot()
    hub.forget()
    try:
        store = WeightStore(root, hub=options(hub))
        assert store.ensure(tiny) == store.locate(tiny)
        assert store.verify(tiny)
        assert snapshot() == before, "not even a lock"
        assert hub.asked == []
    finally:
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)


def test_the_environment_says_how_the_hub_is_reached(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hf_of_a_file\n")
    assert HubOptions.from_environment({}).endpoint == DEFAULT_ENDPOINT
    read = HubOptions.from_environment({"HF_ENDPOINT": "http://mirror/", "HF_TOKEN": "hf_a"})
    assert (read.endpoint, read.token, read.offline) == ("http://mirror", "hf_a", False)
    assert HubOptions.from_environment({"HF_TOKEN_FILE": str(token)}).token == "hf_of_a_file"
    for wrong in ({"HF_ENDPOINT": "mirror"}, {"HF_TOKEN_PATH": str(tmp_path / "none")}):
        with pytest.raises(WeightsError):
            HubOptions.from_environment(wrong)
