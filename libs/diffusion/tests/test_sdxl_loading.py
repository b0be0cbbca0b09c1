"""The promises of loading: the published layout works, and what is wrong is one clear line."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from atrium_common.catalogue import FolderSource, ModelEntry, WeightFile
from atrium_common.domain import Capability
from atrium_common.weights import WeightsError, WeightStore
from atrium_diffusion.sdxl.loading import Components, load_components
from atrium_diffusion.testing import tiny_sdxl as tiny

CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"
MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")


def load(folder: Path, **options: object) -> Components:
    settings = {"dtype": torch.float32, "device": CPU} | options
    return load_components(folder, **settings)  # type: ignore[arg-type]


@pytest.fixture
def copy(tiny_sdxl: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil; its files are links, so take them away before writing anew."""
    return Path(shutil.copytree(tiny_sdxl, tmp_path / "spoilt", copy_function=os.link))


def test_every_weight_is_what_diffusers_itself_reads(tiny_sdxl: Path) -> None:
    ours = load(tiny_sdxl)
    theirs = StableDiffusionXLPipeline.from_pretrained(
        tiny_sdxl, dtype=torch.float32, add_watermarker=False, local_files_only=True
    )
    for name in MODELS:
        model, reference = getattr(ours, name), getattr(theirs, name).state_dict()
        assert model.state_dict().keys() == reference.keys()
        for key, value in model.state_dict().items():
            assert torch.equal(value, reference[key]), f"{name}.{key}"
        assert not model.training
        assert not any(weight.requires_grad for weight in model.parameters())
    assert ours.scheduler_config["timestep_spacing"] == "leading"
    assert ours.force_zeros_for_empty_prompt


def test_the_window_is_77_tokens_and_the_encoders_pad_differently(tiny_sdxl: Path) -> None:
    ours = load(tiny_sdxl)
    first, second = (
        tokenizer("a red circle", padding="max_length", truncation=True).input_ids
        for tokenizer in (ours.tokenizer, ours.tokenizer_2)
    )
    assert len(first) == len(second) == 77
    assert first[:5] == second[:5]
    assert ours.tokenizer.convert_ids_to_tokens(first[:5]) == [
        "<|startoftext|>",
        "a</w>",
        "red</w>",
        "circle</w>",
        "<|endoftext|>",
    ]
    assert (first[-1], second[-1]) == (max(first), 0)


def test_half_precision_is_read_from_its_own_files(copy: Path) -> None:
    (copy / UNET).unlink()  # the other precision need not be there
    ours = load(copy, dtype=torch.float16, variant="fp16")
    weights = load_file(copy / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    for key, value in ours.unet.state_dict().items():
        assert torch.equal(value, weights[key])
    assert ours.text_encoder.dtype == ours.text_encoder_2.dtype == torch.float16
    assert ours.vae.dtype == torch.float32, "its configuration says that half overflows"


def test_another_authors_vae_takes_the_place_of_its_own(tiny_sdxl: Path, tmp_path: Path) -> None:
    fix = tiny.make_vae_fix(tmp_path / "vae-fix")
    ours = load(tiny_sdxl, dtype=torch.float16, variant="fp16", vae=fix)
    assert ours.vae.dtype == torch.float16
    theirs = load_file(fix / "diffusion_pytorch_model.safetensors")
    for key, value in ours.vae.state_dict().items():
        assert torch.equal(value, theirs[key].half())


def test_weights_in_parts_are_read(copy: Path) -> None:
    weights = load_file(copy / UNET)
    (copy / UNET).unlink()
    names = {key: f"part-{number % 2}.safetensors" for number, key in enumerate(weights)}
    for part in set(names.values()):
        save_file({key: weights[key] for key in names if names[key] == part}, copy / "unet" / part)
    index = copy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    for key, value in load(copy).unet.state_dict().items():
        assert torch.equal(value, weights[key])
    (copy / "unet" / "part-1.safetensors").unlink()
    refused(copy, "unet/part-1.safetensors: is missing", "MISSING_FILE")


def refused(folder: Path, told: str, reason: str, **options: object) -> None:
    with pytest.raises(WeightsError) as refusal:
        load(folder, **options)
    message = refusal.value.message
    assert told in message.replace(f"{folder}/", "")
    assert str(folder) in message, "it names the model's folder"
    assert "\n" not in message
    assert refusal.value.reason == reason


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def edit(path: Path, **changes: object) -> None:
    rewrite(path, json.dumps(json.loads(path.read_text()) | changes).encode())


def spoil_shape(folder: Path) -> None:
    weights = load_file(folder / UNET)
    weights["conv_in.weight"] = torch.zeros(32, 9, 3, 3)
    (folder / UNET).unlink()
    save_file(weights, folder / UNET)


def spoil_text_shape(folder: Path) -> None:
    edit(folder / "text_encoder/config.json", max_position_embeddings=78)


def spoil_tensor(folder: Path) -> None:
    weights = load_file(folder / UNET)
    del weights["conv_in.weight"]
    (folder / UNET).unlink()
    save_file(weights, folder / UNET)


def spoil_text_tensor(folder: Path) -> None:
    path = folder / "text_encoder_2/model.safetensors"
    weights = load_file(path)
    del weights["text_projection.weight"]
    path.unlink()
    save_file(weights, path)


def spoil_width(folder: Path) -> None:
    wider = replace(tiny.TINY, text_widths=(64, 48))
    other = tiny.make(folder.parent / "other", dimensions=wider)
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(other / "text_encoder", folder / "text_encoder")


def leave_a_pickle(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"conv_in.weight": 1}))


REFUSALS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no index": (
        lambda folder: (folder / "model_index.json").unlink(),
        "model_index.json: is missing",
        "MISSING_FILE",
    ),
    "not JSON": (
        lambda folder: rewrite(folder / "unet/config.json", b"{'a': 1}"),
        "unet/config.json: can't be read as JSON",
        "BAD_FILE",
    ),
    "a list": (
        lambda folder: rewrite(folder / "vae/config.json", b"[]"),
        "vae/config.json: holds no JSON object",
        "BAD_FILE",
    ),
    "another pipeline": (
        lambda folder: edit(folder / "model_index.json", _class_name="FluxPipeline"),
        "model_index.json: is of FluxPipeline, not of StableDiffusionXLPipeline",
        "BAD_FILE",
    ),
    "another class": (
        lambda folder: edit(folder / "model_index.json", unet=["diffusers", "FluxTransformer"]),
        "model_index.json: unet is ['diffusers', 'FluxTransformer'], not UNet2DConditionModel",
        "BAD_FILE",
    ),
    "code of its own": (
        lambda folder: edit(folder / "model_index.json", vae=["my_code", "AutoencoderKL"]),
        "model_index.json: vae is ['my_code', 'AutoencoderKL'], not AutoencoderKL of diffusers",
        "BAD_FILE",
    ),
    "no component": (
        lambda folder: edit(folder / "model_index.json", text_encoder=[None, None]),
        "model_index.json: text_encoder is [None, None], not CLIPTextModel",
        "BAD_FILE",
    ),
    "no weights": (
        lambda folder: (folder / UNET).unlink(),
        f"{UNET}: is missing",
        "MISSING_FILE",
    ),
    "a pickle": (
        leave_a_pickle,
        f"{UNET}: is missing; diffusion_pytorch_model.bin is a pickle, and never read",
        "MISSING_FILE",
    ),
    "a pickle by another name": (
        lambda folder: rewrite(folder / UNET, pickle.dumps({"conv_in.weight": 1})),
        f"{UNET}: is no safetensors file",
        "BAD_FILE",
    ),
    "a truncated file": (
        lambda folder: rewrite(folder / UNET, (folder / UNET).read_bytes()[:-1000]),
        f"{UNET}: is no safetensors file",
        "BAD_FILE",
    ),
    "a wrong shape": (
        spoil_shape,
        f"{UNET}: conv_in.weight is (32, 9, 3, 3), config.json says (32, 4, 3, 3)",
        "BAD_FILE",
    ),
    "a wrong shape of text": (
        spoil_text_shape,
        "text_encoder/model.safetensors: ",
        "BAD_FILE",
    ),
    "a missing tensor": (spoil_tensor, f"{UNET}: conv_in.weight is missing", "BAD_FILE"),
    "a missing tensor of text": (
        spoil_text_tensor,
        "text_encoder_2/model.safetensors: text_projection.weight is missing",
        "BAD_FILE",
    ),
    "an impossible configuration": (
        lambda folder: edit(folder / "unet/config.json", down_block_types=["NoBlock"]),
        f"{UNET}: can't be loaded with its config.json",
        "BAD_FILE",
    ),
    "no vocabulary": (
        lambda folder: (folder / "tokenizer/vocab.json").unlink(),
        "tokenizer/vocab.json: is missing",
        "MISSING_FILE",
    ),
    "no schedule": (
        lambda folder: (folder / "scheduler/scheduler_config.json").unlink(),
        "scheduler/scheduler_config.json: is missing",
        "MISSING_FILE",
    ),
    "parts of two models": (
        spoil_width,
        "unet/config.json: cross_attention_dim is 80, SDXL needs 112",
        "BAD_FILE",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_wrong_with_a_folder_is_told_in_one_line(copy: Path, case: str) -> None:
    spoil, told, reason = REFUSALS[case]
    spoil(copy)
    refused(copy, told, reason)


def test_a_variant_that_is_not_there_is_told(copy: Path) -> None:
    (copy / "vae/diffusion_pytorch_model.fp16.safetensors").unlink()
    told = "vae/diffusion_pytorch_model.fp16.safetensors: is missing"
    refused(copy, told, "MISSING_FILE", variant="fp16", dtype=torch.float16)


def test_a_changed_byte_is_refused_by_its_digest(copy: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256((copy / UNET).read_bytes()).hexdigest()
    source = FolderSource(kind="folder", path=copy, files=(WeightFile(name=UNET, sha256=digest),))
    entry = ModelEntry(
        id="tiny-sdxl",
        service="text2image",
        capabilities=(Capability.TEXT_TO_IMAGE,),
        engine="diffusers",
        sources=(source,),
        digest=digest,
    )
    store = WeightStore(tmp_path / "models")
    assert store.ensure(entry) == copy
    changed = bytearray((copy / UNET).read_bytes())
    changed[-1] ^= 1
    rewrite(copy / UNET, bytes(changed))
    with pytest.raises(WeightsError, match=f"{UNET} has digest") as refusal:
        store.ensure(entry)
    assert refusal.value.reason == "BAD_DIGEST"
