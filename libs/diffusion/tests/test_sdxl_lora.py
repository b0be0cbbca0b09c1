"""The promises of LoRAs: the right weights act, on their own requests, and leave no trace."""

import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atrium_common.catalogue import AdapterEntry, FolderSource, WeightFile
from atrium_common.errors import NotFound
from atrium_common.weights import WeightsError, WeightStore
from atrium_diffusion.domain import AppliedLora, LoraUse
from atrium_diffusion.sdxl.loading import Components, load_components
from atrium_diffusion.sdxl.lora import LoraSet
from atrium_diffusion.sdxl.lora_files import LoraFiles
from atrium_diffusion.testing import tiny_lora, tiny_sdxl

CPU = torch.device("cpu")
PARTS = ("unet", "text_encoder", "text_encoder_2")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
Answers = dict[str, Tensor]
"""What each component says."""


def load(folder: Path) -> Components:
    torch.set_num_threads(1)
    return load_components(folder, dtype=torch.float32, device=CPU)


@pytest.fixture(scope="module")
def components(tiny_sdxl: Path) -> Components:
    """The model; tests unload what they put in."""
    return load(tiny_sdxl)


@pytest.fixture(scope="module")
def folder(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters for the model, each in a folder of its own."""
    root = tmp_path_factory.mktemp("loras")
    tiny_lora.make(root / "one" / "one.safetensors", tiny_sdxl, seed=1)
    tiny_lora.make(root / "two" / "two.safetensors", tiny_sdxl, seed=2, rank=2)
    tiny_lora.make(root / "three" / "three.safetensors", tiny_sdxl, seed=3)
    tiny_lora.make(root / "text" / "text.safetensors", tiny_sdxl, seed=4, text=True)
    return root


def entry(folder: Path, name: str, **fields: object) -> AdapterEntry:
    return AdapterEntry.model_validate(
        {"id": name, "kind": "lora", "models": ["tiny"]}
        | {"sources": [{"kind": "folder", "path": folder / name}]}
        | fields
    )


def open_files(folder: Path) -> LoraFiles:
    entries = [entry(folder, path.name) for path in sorted(folder.iterdir())]
    return LoraFiles(entries, store=WeightStore(folder / "store"))


class Bench:
    """A set of adapters over the model, and what the model says."""

    def __init__(self, components: Components, folder: Path, *, kept: int = 4) -> None:
        self.files = open_files(folder)
        self.components = components
        self.set = LoraSet(components, self.files, kept=kept)

    def use(self, **scales: float) -> None:
        uses = [LoraUse(id=name.replace("_", "-"), scale=scale) for name, scale in scales.items()]
        self.set.activate(self.files.applied(uses))

    def says(self) -> Answers:
        return says(self.components)


@pytest.fixture
def bench(components: Components, folder: Path) -> Bench:
    bench = Bench(components, folder)
    yield bench
    bench.set.unload()


@torch.no_grad()
def says(components: Components) -> Answers:
    """What each component answers to the same question."""
    random = torch.Generator().manual_seed(0)
    unet = components.unet
    tokens = torch.randint(0, 500, (1, 77), generator=random)
    latents = torch.randn(2, 4, 16, 16, generator=random)
    added = {
        "text_embeds": torch.randn(2, 48, generator=random),
        "time_ids": torch.tensor([[128.0, 128, 0, 0, 128, 128]]).expand(2, -1),
    }
    states = torch.randn(2, 77, unet.config.cross_attention_dim, generator=random)
    noise = unet(latents, torch.tensor([900.0, 300.0]), states, added_cond_kwargs=added)
    first = components.text_encoder(tokens, output_hidden_states=True)
    second = components.text_encoder_2(tokens, output_hidden_states=True)
    return {
        "unet": noise.sample,
        "text_encoder": first.hidden_states[-2],
        "text_encoder_2": second.text_embeds,
    }


def merged(checkpoint: Path, *changes: tuple[Path, float]) -> Answers:
    """What the model says with adapters added into its weights by hand."""
    components = load(checkpoint)
    for path, scale in changes:
        state = load_file(path)
        for key, down in state.items():
            if key.endswith(".lora_A.weight"):
                part, _, name = key.removesuffix(".lora_A.weight").partition(".")
                up = state[key.replace("lora_A", "lora_B")]
                change = up.flatten(1) @ down.flatten(1)
                layer = weight(getattr(components, part), name)
                layer.data += scale * change.view_as(layer)
    return says(components)


def weight(model: nn.Module, name: str) -> Tensor:
    if not hasattr(model, "text_model"):
        name = name.removeprefix("text_model.")
    return model.get_submodule(name).weight  # type: ignore[return-value]


def same(left: Answers, right: Answers, *, parts: Sequence[str] = PARTS) -> bool:
    return all(torch.equal(left[part], right[part]) for part in parts)


def close(left: Answers, right: Answers) -> None:
    for part in PARTS:
        torch.testing.assert_close(left[part], right[part], **CLOSE)


def test_an_adapter_is_its_product_added_to_the_weights(
    bench: Bench, folder: Path, tiny_sdxl: Path
) -> None:
    plain = bench.says()
    bench.use(one=0.7)
    close(bench.says(), merged(tiny_sdxl, (folder / "one/one.safetensors", 0.7)))
    assert not torch.allclose(bench.says()["unet"], plain["unet"], atol=1e-3)
    bench.use(one=-1.5, two=0.5)
    both = ((folder / "one/one.safetensors", -1.5), (folder / "two/two.safetensors", 0.5))
    close(bench.says(), merged(tiny_sdxl, *both))


def test_text_encoders_are_adapted_too(bench: Bench, folder: Path, tiny_sdxl: Path) -> None:
    plain = bench.says()
    bench.use(text=1.0)
    close(bench.says(), merged(tiny_sdxl, (folder / "text/text.safetensors", 1.0)))
    bench.use(text=1.0, one=0.3)
    bench.use(one=0.3)
    assert same(bench.says(), plain, parts=("text_encoder", "text_encoder_2"))


def with_alphas(plain: Path, target: Path, *, alpha: float) -> Path:
    """Writes a file of diffusers' dialect with the alphas of `tiny_lora` in its weights."""
    state = load_file(plain)
    downs = [key for key in state if key.endswith(".lora_A.weight")]
    downs.sort(key=lambda key: (PARTS.index(key.partition(".")[0]), key))
    for number, down in enumerate(downs):
        scale = alpha / state[down].shape[0] * (1 + number % 2)
        state[down.replace("lora_A", "lora_B")] *= scale
    save_file(state, target)
    return target


@pytest.mark.parametrize(
    ("layout", "text", "everywhere"),
    [("kohya", True, False), ("kohya", False, True), ("kohya-diffusers", False, True)],
)
def test_files_of_sd_scripts_are_read_with_every_layers_alpha(
    components: Components,
    tiny_sdxl: Path,
    tmp_path: Path,
    layout: tiny_lora.Layout,
    text: bool,
    everywhere: bool,
) -> None:
    def make(path: Path, layout: tiny_lora.Layout) -> Path:
        return tiny_lora.make(
            path, tiny_sdxl, layout=layout, alpha=3, text=text, everywhere=everywhere, seed=5
        )

    make(tmp_path / "loras/kohya-v1.5/k.safetensors", layout)
    plain = make(tmp_path / "plain.safetensors", "diffusers")
    product = with_alphas(plain, tmp_path / "product.safetensors", alpha=3)
    bench = Bench(components, tmp_path / "loras")
    bench.set.activate(bench.files.applied([LoraUse(id="kohya-v1.5", scale=0.9)]))
    close(bench.says(), merged(tiny_sdxl, (product, 0.9)))
    bench.set.unload()


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_it_is_what_a_pipeline_with_the_same_adapters_does(
    bench: Bench, folder: Path, tiny_sdxl: Path
) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(
        tiny_sdxl, dtype=torch.float32, add_watermarker=False, local_files_only=True
    )
    pipe.load_lora_weights(folder / "one", weight_name="one.safetensors", adapter_name="one")
    pipe.load_lora_weights(folder / "two", weight_name="two.safetensors", adapter_name="two")
    pipe.set_adapters(["one", "two"], [0.4, 0.8])
    bench.use(two=0.8, one=0.4)
    theirs = replace(bench.components, **{part: getattr(pipe, part) for part in PARTS})
    close(bench.says(), says(theirs))


def test_batches_with_different_adapters_do_not_mix(bench: Bench) -> None:
    sets: list[dict[str, float]] = [{}, {"one": 0.7}, {"two": 1.0}, {"one": 0.7, "text": 0.5}]
    first = []
    for scales in sets:
        bench.use(**scales)
        first.append(bench.says())
    for number in (2, 0, 3, 1, 3, 0, 2, 1):
        bench.use(**sets[number])
        assert same(bench.says(), first[number])
    bench.use(one=0.6)
    assert not same(bench.says(), first[1], parts=["unet"]), "another scale is another set"


def test_without_adapters_the_model_is_bit_for_bit_its_own(
    components: Components, folder: Path
) -> None:
    layers = {part: dict(getattr(components, part).named_modules()) for part in PARTS}
    weights = {part: dict(getattr(components, part).state_dict()) for part in PARTS}
    plain = says(components)
    bench = Bench(components, folder)
    bench.use(text=1.3, two=-0.5)
    assert not same(bench.says(), plain)
    bench.use()
    assert same(bench.says(), plain)
    bench.set.unload()
    assert same(bench.says(), plain)
    assert bench.set.loaded == ()
    for part in PARTS:
        model = getattr(components, part)
        assert dict(model.named_modules()) == layers[part], "the very same layers"
        assert all(torch.equal(v, weights[part][k]) for k, v in model.state_dict().items())
        assert model.state_dict().keys() == weights[part].keys()
    bench.use(one=1.0)
    bench.set.unload()
    assert same(bench.says(), plain)


def test_nothing_asks_for_gradients(bench: Bench) -> None:
    bench.use(one=1.0, text=0.5)
    for part in PARTS:
        model = getattr(bench.components, part)
        assert not any(value.requires_grad for value in model.parameters())
        assert not model.training


def test_the_least_recently_used_leaves_memory(components: Components, folder: Path) -> None:
    bench = Bench(components, folder, kept=2)
    bench.use(one=1.0)
    one = bench.says()
    bench.use(two=1.0)
    bench.use(one=1.0)
    bench.use(three=1.0)
    assert bench.set.loaded == ("one", "three")
    bench.use(text=1.0)
    assert bench.set.loaded == ("three", "text")
    bench.use(one=1.0)
    assert same(bench.says(), one)
    bench.use(one=1.0, two=1.0, text=1.0)
    assert sorted(bench.set.loaded) == ["one", "text", "two"], "a request may need more at once"
    bench.use(three=1.0)
    assert len(bench.set.loaded) <= 4
    bench.set.unload()


def test_an_adapter_is_read_once(components: Components, tiny_sdxl: Path, tmp_path: Path) -> None:
    file = tiny_lora.make(tmp_path / "loras/one/one.safetensors", tiny_sdxl)
    bench = Bench(components, tmp_path / "loras")
    bench.use(one=1.0)
    said = bench.says()
    bench.use()
    file.unlink()
    applied = bench.files.applied([LoraUse(id="one")])
    bench.set.activate(applied)
    assert same(bench.says(), said)
    bench.set.unload()
    with pytest.raises(WeightsError, match=r"one\.safetensors: is missing"):
        bench.set.activate(applied)


def test_an_unknown_adapter_is_named(folder: Path) -> None:
    files = open_files(folder)
    assert files.ids == ("one", "text", "three", "two")
    with pytest.raises(NotFound, match="no LoRA 'four'; it has: one, text, three, two") as refusal:
        files.applied([LoraUse(id="one"), LoraUse(id="four")])
    assert refusal.value.field == "denoising.loras"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"accept_license": True, "license": "Strict-1.0"}, "LICENSE_NOT_ACCEPTED"),
        ({"sources": [{"kind": "folder", "path": "nowhere"}]}, "MISSING_FILE"),
    ],
)
def test_what_may_not_or_can_not_be_used_is_refused_before_any_work(
    folder: Path, fields: dict[str, object], reason: str
) -> None:
    unusable = entry(folder, "one", **fields)
    files = LoraFiles([unusable], store=WeightStore(folder / "store"))
    files.prepare()
    with pytest.raises(WeightsError, match="one") as refusal:
        files.applied([LoraUse(id="one")])
    assert refusal.value.reason == reason


def test_a_digest_is_the_catalogues_or_else_the_files(folder: Path) -> None:
    file = folder / "one/one.safetensors"
    real = hashlib.sha256(file.read_bytes()).hexdigest()
    listed = FolderSource(
        kind="folder",
        path=file.parent,
        files=(WeightFile(name="one.safetensors", sha256="b" * 64),),
    )
    for fields, expected in (
        ({"digest": "a" * 64}, "a" * 64),
        ({"sources": [listed.model_dump()]}, "b" * 64),
        ({}, real),
    ):
        files = LoraFiles([entry(folder, "one", **fields)], store=WeightStore(folder / "store"))
        (applied,) = files.applied([LoraUse(id="one", scale=0.5)])
        assert applied == AppliedLora(id="one", digest=expected, scale=0.5)


def test_the_order_in_which_adapters_are_named_does_not_matter(folder: Path) -> None:
    files = open_files(folder)
    named = [LoraUse(id="two"), LoraUse(id="one", scale=0.5)]
    assert files.applied(named) == files.applied(named[::-1])
    assert [lora.id for lora in files.applied(named)] == ["one", "two"]


def spoil_digest(file: Path, checkpoint: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def leave_a_pickle(file: Path, checkpoint: Path) -> None:
    file.unlink()
    (file.parent / "lora.bin").write_bytes(pickle.dumps({}))


def disguise_a_pickle(file: Path, checkpoint: Path) -> None:
    file.write_bytes(pickle.dumps({}))


def make_for_another_width(file: Path, checkpoint: Path) -> None:
    wider = replace(tiny_sdxl.TINY, unet_channels=(32, 64, 64))
    other = tiny_sdxl.make(file.parents[2] / "wider", dimensions=wider)
    tiny_lora.make(file, other)


def make_for_a_deeper_model(file: Path, checkpoint: Path) -> None:
    deeper = replace(tiny_sdxl.TINY, transformer_layers=(1, 1, 3))
    other = tiny_sdxl.make(file.parents[2] / "deeper", dimensions=deeper)
    tiny_lora.make(file, other)


def make_a_dora(file: Path, checkpoint: Path) -> None:
    state = load_file(file)
    name = next(iter(state)).removesuffix(".lora_A.weight")
    save_file(state | {f"{name}.dora_scale": torch.ones(1)}, file)


def put_weights_there(file: Path, checkpoint: Path) -> None:
    file.write_bytes((checkpoint / "unet/diffusion_pytorch_model.safetensors").read_bytes())


def add_another_file(file: Path, checkpoint: Path) -> None:
    (file.parent / "two.safetensors").write_bytes(file.read_bytes())


def empty_it(file: Path, checkpoint: Path) -> None:
    save_file({}, file)


REFUSALS: dict[str, tuple[Callable[[Path, Path], None], str, str]] = {
    "digest": (spoil_digest, "has digest", "BAD_DIGEST"),
    "pickle": (leave_a_pickle, "lora.bin is a pickle, and never read", "MISSING_FILE"),
    "disguise": (disguise_a_pickle, "is no safetensors file", "BAD_FILE"),
    "width": (make_for_another_width, "fits no layer of this model", "BAD_FILE"),
    "depth": (make_for_a_deeper_model, "fits no layer of this model", "BAD_FILE"),
    "dora": (make_a_dora, "is a DoRA; only LoRAs are supported", "BAD_FILE"),
    "weights": (put_weights_there, "is not of a LoRA for SDXL", "BAD_FILE"),
    "several": (add_another_file, "is one .safetensors file, here are 2", "BAD_FILE"),
    "empty": (empty_it, "holds no LoRA", "BAD_FILE"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_no_lora_is_told_and_changes_nothing(
    bench: Bench, tiny_sdxl: Path, tmp_path: Path, case: str
) -> None:
    spoil, told, reason = REFUSALS[case]
    file = tiny_lora.make(tmp_path / "loras/bad/bad.safetensors", tiny_sdxl)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    spoil(file, tiny_sdxl)
    if reason == "BAD_FILE":  # it is what the catalogue says, and yet no LoRA for this model
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    bench.use(one=0.7)
    before = bench.says()
    entries = [entry(tmp_path / "loras", "bad", digest=digest)]
    bench.set._files = LoraFiles(entries, store=WeightStore(tmp_path / "store"))
    with pytest.raises(WeightsError) as refusal:
        bench.set.activate(bench.set._files.applied([LoraUse(id="bad")]))
    message = refusal.value.message
    assert told in message
    assert "\n" not in message
    assert "bad" in message.replace(str(tmp_path), "")
    assert refusal.value.reason == reason
    assert same(bench.says(), before), "what acted before still does"
    bench.set._files = bench.files
    bench.use(two=1.0)
    assert not same(bench.says(), before)


def test_metadata_of_the_file_says_the_alpha(
    bench: Bench, folder: Path, tiny_sdxl: Path, tmp_path: Path
) -> None:
    state = load_file(folder / "one/one.safetensors")
    layers = ["to_q", "to_k", "to_v", "to_out.0"]
    config = {"unet.r": 4, "unet.lora_alpha": 2, "unet.target_modules": layers}
    file = tmp_path / "loras/half/half.safetensors"
    file.parent.mkdir(parents=True)
    save_file(state, file, metadata={"lora_adapter_metadata": json.dumps(config)})
    half = Bench(bench.components, tmp_path / "loras")
    half.use(half=1.0)
    close(half.says(), merged(tiny_sdxl, (folder / "one/one.safetensors", 0.5)))
    half.set.unload()


def test_what_is_held_is_read_once_however_little_is_kept(
    components: Components, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(components, folder, kept=1)
    read: list[str] = []
    checked = bench.files.checked
    monkeypatch.setattr(bench.files, "checked", lambda lora: read.append(lora.id) or checked(lora))
    both = bench.files.applied([LoraUse(id="one"), LoraUse(id="two")])
    missing = bench.set.hold(both)
    assert missing == list(both)
    bench.set.read(missing)
    assert bench.set.hold(both[:1]) == []
    for _ in range(2):
        for each in both:
            bench.set.activate([each])
    bench.set.release(both[:1])
    bench.set.read(both)
    assert read == ["one", "two"]
    bench.set.release(both)
    assert bench.set.hold(both) == [], "what acted last is still in memory"
    bench.set.unload()
    bench.set.release(both)
    assert bench.set.hold(both) == list(both)
    bench.set.release(both)
    bench.set.read(both)
    assert read == ["one", "two"], "nothing is read for whoever left"
