"""Prompts are encoded as diffusers' pipeline encodes them, once, and never cut unasked."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from starter_sdxl import CPU, load_pipeline

from atrium_common.errors import InvalidArgument
from atrium_diffusion.domain import AppliedLora
from atrium_diffusion.model import Conditioning
from atrium_diffusion.sdxl.loading import Components, load_components
from atrium_diffusion.sdxl.model import SdxlModel
from atrium_diffusion.sdxl.text import PromptEncoder

WINDOW = 30
"""Tokens that the starter model reads between the first and the last one."""


@pytest.fixture(scope="module")
def components(starter_folder: Path) -> Components:
    return load_components(starter_folder, dtype=torch.float32, device=CPU)


def encoder(components: Components, *, cached: int = 4) -> PromptEncoder:
    return PromptEncoder(components, device=CPU, adapted=lambda _: nullcontext(), cached=cached)


def encode(model: SdxlModel, prompt: str, *, truncate: bool = False) -> Conditioning:
    return model.encode_prompt(prompt, loras=(), truncate=truncate)


@pytest.mark.parametrize("negative", [None, "", "a blue square", "ein rotes Rechteck: ümlaut, 赤"])
def test_equals_the_pipelines_prompts(
    starter_model: SdxlModel, starter_pipe: StableDiffusionXLPipeline, negative: str | None
) -> None:
    prompt = "three green stars on a white background"
    embeds, negatives, pooled, pooled_negatives = starter_pipe.encode_prompt(
        prompt, negative_prompt=negative
    )
    ours = encode(starter_model, prompt)
    assert torch.equal(ours.embeds, embeds)
    assert torch.equal(ours.pooled, pooled)
    if negative != "":  # ours is always a text: an empty one means none
        ours = encode(starter_model, negative or "")
        assert torch.equal(ours.embeds, negatives)
        assert torch.equal(ours.pooled, pooled_negatives)


def test_the_second_encoders_own_padding_counts(tiny_sdxl: Path) -> None:
    real_layout = load_components(tiny_sdxl, dtype=torch.float32, device=CPU)
    ours = encoder(real_layout).encode("a red circle", loras=(), truncate=False)
    theirs = load_pipeline(tiny_sdxl).encode_prompt("a red circle")
    assert ours.embeds.shape[1] == 77
    assert torch.equal(ours.embeds, theirs[0])
    assert torch.equal(ours.pooled, theirs[2])


def test_an_empty_negative_is_encoded_where_the_model_wants_that(
    components: Components, starter_pipe: StableDiffusionXLPipeline
) -> None:
    wanting = replace(components, force_zeros_for_empty_prompt=False)
    ours = encoder(wanting).encode("", loras=(), truncate=False)
    theirs = starter_pipe.encode_prompt("a star", negative_prompt="")
    assert torch.equal(ours.embeds, theirs[1])
    assert torch.equal(ours.pooled, theirs[3])


def test_a_prompt_past_the_window_is_refused_with_its_excess(starter_model: SdxlModel) -> None:
    starter_model.check_prompt("." * WINDOW, field="prompt")
    with pytest.raises(InvalidArgument, match="3 tokens over the 30") as refused:
        starter_model.check_prompt("." * (WINDOW + 3), field="negative_prompt")
    assert refused.value.reason == "PROMPT_TOO_LONG"
    assert refused.value.field == "negative_prompt"
    with pytest.raises(InvalidArgument, match="3 tokens over"):
        encode(starter_model, "." * (WINDOW + 3))


def test_a_prompt_is_cut_like_the_pipelines_when_asked(
    starter_model: SdxlModel, starter_pipe: StableDiffusionXLPipeline
) -> None:
    prompt = "a red circle " * 20
    ours = encode(starter_model, prompt, truncate=True)
    assert torch.equal(ours.embeds, starter_pipe.encode_prompt(prompt)[0])


def test_a_prompt_is_encoded_once_and_the_least_used_is_forgotten(components: Components) -> None:
    prompts = encoder(components, cached=2)
    first = prompts.encode("a star", loras=(), truncate=False)
    prompts.encode("a circle", loras=(), truncate=False)
    assert prompts.encode("a star", loras=(), truncate=False) is first
    prompts.encode("a square", loras=(), truncate=False)
    assert prompts.encode("a star", loras=(), truncate=False) is first
    prompts.encode("a circle", loras=(), truncate=False)
    prompts.encode("a square", loras=(), truncate=False)
    assert prompts.encode("a star", loras=(), truncate=False) is not first


def test_adapters_act_while_a_prompt_is_encoded_and_tell_encodings_apart(
    components: Components,
) -> None:
    seen: list[tuple[AppliedLora, ...]] = []

    def adapted(loras: tuple[AppliedLora, ...]) -> AbstractContextManager[None]:
        seen.append(loras)
        return nullcontext()

    prompts = PromptEncoder(components, device=CPU, adapted=adapted, cached=8)  # type: ignore[arg-type]
    style = (AppliedLora(id="style", digest="", scale=1.0),)
    weaker = (replace(style[0], scale=0.5),)
    made = [prompts.encode("a star", loras=used, truncate=False) for used in ((), style, weaker)]
    assert prompts.encode("a star", loras=style, truncate=False) is made[1]
    assert seen == [(), style, weaker]
    assert len({id(one) for one in made}) == 3
