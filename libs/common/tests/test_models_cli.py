"""The promises of `atrium models`: every command, as an operator types it."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from atrium_common.catalogue import CatalogueError
from atrium_common.errors import AtriumError, InvalidArgument, NotFound
from atrium_common.models_cli import app
from atrium_common.models_cli.app import main
from atrium_common.testing.hub import HubStandIn
from atrium_common.weights import WeightsError, space
from atrium_common.weights.locks import locked

BIG = b"tensors " * 5000
CATALOGUE = """
models:
  - id: drawing
    service: text2image
    capabilities: [text-to-image]
    engine: fake
    license: MIT
    memory_mib: 700
    sources: &sources
      - {{kind: hub, repository: {hub.repository}, revision: {hub.revision}, unverified: true}}
  - id: editing
    service: img2img
    capabilities: [image-to-image]
    engine: fake
    sources: *sources
  - id: strict
    service: llm
    capabilities: [chat]
    engine: fake
    license: Strict-1.0
    accept_license: true
    sources:
      - kind: hub
        repository: {hub.repository}
        revision: {hub.revision}
        allow: [model.safetensors]
        unverified: true
  - id: theirs
    service: llm
    capabilities: [completion]
    engine: openai
adapters:
  - id: style
    kind: lora
    models: [drawing]
    sources:
      - {{kind: folder, path: style, files: [{{name: style.safetensors, size: 5}}]}}
"""

Run = Callable[..., Result]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """A hub that the environment names."""
    files = {"model.safetensors": BIG, "config.json": b"{}"}
    with HubStandIn(files=files).serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


@pytest.fixture
def run(hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line on a catalogue of the hub's models; raises what it raises."""
    (tmp_path / "style").mkdir()
    (tmp_path / "style" / "style.safetensors").write_bytes(b"style")
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(CATALOGUE.format(hub=hub))
    monkeypatch.setenv("ATRIUM_CATALOGUE", str(catalogue))
    monkeypatch.setenv("ATRIUM_MODELS_DIR", str(tmp_path / "models"))

    def run(*words: str, typed: str | None = None, status: int = 0) -> Result:
        result = CliRunner().invoke(app, words, input=typed)
        if isinstance(result.exception, AtriumError):
            raise result.exception
        assert result.exit_code == status, result.output
        return result

    return run


def states(run: Run) -> dict[str, str]:
    listed = json.loads(run("list", "--json").stdout)
    return {record["id"]: record["state"] for record in listed}


def test_list_says_what_there_is_and_what_is_here(run: Run, hub: HubStandIn) -> None:
    before = {"drawing": "missing", "editing": "missing", "strict": "missing"}
    others = {"theirs": "no files", "style": "present"}
    assert states(run) == before | others
    run("pull", "drawing")
    assert states(run) == {**before, "drawing": "present", "editing": "present"} | others
    first = json.loads(run("list", "--json", "--service", "text2image").stdout)
    assert [record["id"] for record in first] == ["drawing", "style"]
    assert first[0] == {
        "id": "drawing",
        "kind": "model",
        "services": ["text2image"],
        "capabilities": ["text-to-image"],
        "size_bytes": None,
        "memory_mib": 700,
        "license": "MIT",
        "license_accepted": None,
        "state": "present",
    }
    table = run("list").output
    assert "700 MiB" in table
    assert "licence accept strict" in table
    with pytest.raises(NotFound, match="service 'video'"):
        run("list", "--service", "video")


def test_pull_takes_all_that_it_may(run: Run, hub: HubStandIn) -> None:
    result = run("pull", "--all")
    assert "strict: passed over" in result.output
    assert "drawing: ready" in result.output
    assert hub.sent["model.safetensors"] == len(BIG), "shared files come once"
    hub.down = True
    run("pull")


def test_pull_takes_what_is_offered(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATRIUM_MODELS", "editing, theirs")
    assert "strict" not in run("pull").output
    assert states(run)["editing"] == "present"
    monkeypatch.setenv("ATRIUM_MODELS", "nobody")
    with pytest.raises(CatalogueError, match="no model 'nobody'"):
        run("pull")
    run("pull", "editing")


def test_pull_takes_what_the_profiles_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSE_PROFILES", "img2img,observability")
    said = run("pull").output
    assert "editing: ready" in said
    assert "drawing" not in said
    monkeypatch.setenv("ATRIUM_MODELS", "drawing")
    assert "nothing to fetch" in run("pull").output
    assert "style: ready" in run("pull", "--profiles", "image").output
    assert "drawing: ready" in run("pull", "drawing").output
    assert "strict: passed over" in run("pull", "--all").output


def test_a_cut_pull_is_told_and_gone_on_with(run: Run, hub: HubStandIn) -> None:
    hub.flips["model.safetensors"] = 9
    assert "error: drawing: model.safetensors" in run("pull", "drawing", status=1).output
    assert states(run)["drawing"] == "partial"
    hub.flips.clear()
    run("pull", "drawing", "--jobs", "1")
    assert states(run)["drawing"] == "present"


def test_pull_asks_for_the_space_of_all_first(run: Run, hub: HubStandIn, tmp_path: Path) -> None:
    text = (tmp_path / "catalogue.yaml").read_text()
    listed = f"files: [{{name: model.safetensors, size: {1 << 60}}}], unverified: true}}"
    (tmp_path / "catalogue.yaml").write_text(text.replace("unverified: true}", listed, 1))
    with pytest.raises(WeightsError, match="MiB of disk are needed") as failure:
        run("pull")
    assert failure.value.reason == "NO_SPACE"
    assert hub.asked == []


def test_what_has_arrived_needs_no_space_again(
    run: Run, hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (tmp_path / "catalogue.yaml").read_text()
    sizes = f"{{name: model.safetensors, size: {len(BIG)}}}, {{name: config.json, size: 2}}"
    listed = f"files: [{sizes}], unverified: true}}"
    (tmp_path / "catalogue.yaml").write_text(text.replace("unverified: true}", listed))
    hub.flips["config.json"] = 0
    run("pull", "drawing", "--jobs", "1", status=1)
    monkeypatch.setattr(space, "_SPARE", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(BIG) // 2))
    hub.flips.clear()
    hub.forget()
    run("pull", "drawing")
    assert hub.sent == {"config.json": 2}


def test_pull_refuses_names_beside_all(run: Run) -> None:
    with pytest.raises(InvalidArgument, match="not both"):
        run("pull", "drawing", "--all")
    with pytest.raises(NotFound, match="it has drawing, editing"):
        run("pull", "drawings")


def test_verify_names_what_differs(run: Run, tmp_path: Path) -> None:
    run("pull", "drawing")
    assert "drawing: good" in run("verify").output
    (model,) = (tmp_path / "models").glob("drawing/*/model.safetensors")
    model.write_bytes(BIG[:-1] + b"!")
    assert states(run)["drawing"] == "changed"
    said = run("verify", status=1).output.replace("\n", "")
    assert f"{model}: has another SHA-256" in said
    verdicts = json.loads(run("verify", "drawing", "--json", status=1).stdout)
    assert verdicts[0]["findings"] == [
        {"file": "model.safetensors", "problem": "digest", "folder": str(model.parent)}
    ]
    model.unlink()
    (tmp_path / "style" / "style.safetensors").write_bytes(b"longer")
    said = run("verify", status=1).output
    assert "model.safetensors: is not there" in said
    assert "style.safetensors: has another size" in said
    run("pull", "drawing")
    run("verify", "drawing")
    assert "all of it: is not there" in run("verify", "strict", status=1).output


def test_remove_deletes_what_nobody_shares(run: Run, hub: HubStandIn, tmp_path: Path) -> None:
    run("pull", "drawing")
    with pytest.raises(InvalidArgument, match="shares its files with editing"):
        run("remove", "drawing")
    with pytest.raises(InvalidArgument, match="folder of your own"):
        run("remove", "style")
    assert "removed drawing, editing: 39.4 KiB" in run("remove", "drawing", "editing").output
    assert "nothing of strict was here" in run("remove", "strict").output
    assert states(run)["drawing"] == states(run)["editing"] == "missing"
    left = [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
    assert all(path.parent.name == ".locks" for path in left)
    hub.flips["config.json"] = 1
    run("pull", "drawing", status=1)
    assert states(run)["drawing"] == "partial"
    run("remove", "drawing", "editing")
    assert states(run)["drawing"] == "missing"


def test_prune_deletes_what_the_catalogue_left(run: Run, hub: HubStandIn, tmp_path: Path) -> None:
    root, catalogue = tmp_path / "models", tmp_path / "catalogue.yaml"
    first = catalogue.read_text()
    run("licence", "accept", "strict", "--yes")
    run("pull", "strict")
    hub.flips["config.json"] = 0
    run("pull", "drawing", status=1)
    (cut,) = root.glob(".partial/*.part")
    (old,) = root.glob("strict/*")
    (made := old.with_name(f"{old.name}-bf16")).mkdir()
    (foreign := root / "strict" / "notes").mkdir()
    assert run("prune").output == ""
    hub.revision = "d" * 40
    catalogue.write_text(CATALOGUE.format(hub=hub))
    (tmp_path / "first.yaml").write_text(first)
    assert run("prune", "--beside", str(tmp_path / "first.yaml")).output == ""
    assert "3 folders of other catalogues or revisions hold" in run("list").output
    assert "would delete" in run("prune", "--dry-run").output
    with locked(root, cut.name.removesuffix(".part"), waits=None):
        assert "it is being fetched" in run("prune").output
    assert all(each.is_dir() for each in (cut, old, made))
    assert "--models deletes it" in run("prune").output
    assert [each.is_dir() for each in (cut, old, made)] == [False, True, True]
    run("prune", "--models")
    assert [each.is_dir() for each in (old, made, foreign)] == [False, False, True]
    hub.flips.clear()
    assert "other catalogues" not in run("pull", "drawing").output


@pytest.mark.parametrize("spelling", ["licence", "license"])
def test_a_licence_is_accepted_by_word(run: Run, tmp_path: Path, spelling: str) -> None:
    assert "licence accept strict" in run("pull", "strict", status=1).output
    with pytest.raises(InvalidArgument, match="not accepted"):
        run(spelling, "accept", "strict", typed="no\n")
    run(spelling, "accept", "strict", typed="", status=1)
    asked = run(spelling, "accept", "strict", "--by", "Ada", typed="yes\n").output
    assert "Strict-1.0. Read it first: http" in asked
    assert "Ada accepted Strict-1.0 for strict" in asked
    record = json.loads((tmp_path / "models/.licences/strict.json").read_text())
    assert (record["by"], record["license"]) == ("Ada", "Strict-1.0")
    run("pull", "strict")
    shown = json.loads(run("show", "strict", "--json").stdout)
    assert (shown["license_accepted"], shown["accepted_by"]) == (True, "Ada")


def test_an_acceptance_is_of_one_licence(run: Run, tmp_path: Path) -> None:
    run("licence", "accept", "strict", "--yes")
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(catalogue.read_text().replace("Strict-1.0", "Strict-2.0"))
    assert "licence accept strict" in run("pull", "strict", status=1).output
    (tmp_path / "models/.licences/strict.json").write_text("{")
    with pytest.raises(WeightsError, match="accept the licence again"):
        run("list")
    assert "needs no acceptance" in run("licence", "accept", "drawing").output


def test_show_tells_all_of_an_entry(run: Run, hub: HubStandIn) -> None:
    run("pull", "drawing")
    shown = json.loads(run("show", "drawing", "--json").stdout)
    assert shown["license_text"] == f"{hub.endpoint}/{hub.repository}"
    (source,) = shown["sources"]
    assert source["revision"] == hub.revision
    assert {file["name"] for file in source["files"]} == set(hub.files)
    assert all(len(file["sha256"]) == 64 for file in source["files"])
    text = run("show", "drawing").output
    assert hub.revision in text
    assert "model.safetensors" in text
    assert "style" in run("show", "style").output


@pytest.mark.usefixtures("logs_as_before")
def test_errors_are_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["atrium-models", "show", "nothing"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("atrium-models: There is no 'nothing'")
