"""The configuration files of SDXL base 1.0, key by key, at any width.

`tiny_sdxl.py` writes them, and makes models of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atrium_diffusion.testing.clip_tokenizer import TOKENS

_DIFFUSERS = "0.19.0.dev0"
_TRANSFORMERS = "4.32.0.dev0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """Size of the model; all else is SDXL's.

    Attributes:
        unet_channels: Channels of the UNet's three levels, multiples of 32.
        unet_heads: Attention heads of its levels.
        transformer_layers: Transformer layers of its levels; the first has no attention.
        time_channels: Channels that encode each of the six numbers of a picture's size.
        vae_channels: Channels of the autoencoder's four levels, multiples of 32.
        vae_layers: Residual blocks of each.
        text_widths: Channels of the two text encoders.
        text_heads: Attention heads of each.
        text_layers: Transformer layers of each.
        vocabulary: Rows of their token tables, at least.
        latent_side: Side of the native latents; a picture's is eight times that.
    """

    unet_channels: tuple[int, int, int]
    unet_heads: tuple[int, int, int]
    transformer_layers: tuple[int, int, int]
    time_channels: int
    vae_channels: tuple[int, int, int, int]
    vae_layers: int
    text_widths: tuple[int, int]
    text_heads: tuple[int, int]
    text_layers: tuple[int, int]
    vocabulary: int
    latent_side: int


TINY = Dimensions(
    unet_channels=(32, 32, 64),
    unet_heads=(1, 2, 4),
    transformer_layers=(1, 1, 2),
    time_channels=8,
    vae_channels=(32, 32, 32, 32),
    vae_layers=1,
    text_widths=(32, 48),
    text_heads=(2, 3),
    text_layers=(2, 3),
    vocabulary=0,
    latent_side=16,
)
"""A few MB; native size 128 x 128 pixels."""

FULL = Dimensions(
    unet_channels=(320, 640, 1280),
    unet_heads=(5, 10, 20),
    transformer_layers=(1, 2, 10),
    time_channels=256,
    vae_channels=(128, 256, 512, 512),
    vae_layers=2,
    text_widths=(768, 1280),
    text_heads=(12, 20),
    text_layers=(12, 32),
    vocabulary=49408,
    latent_side=128,
)
"""SDXL's own; 7 GB in half precision, and 14 more in single."""

INDEX: Mapping[str, object] = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": _DIFFUSERS,
    "force_zeros_for_empty_prompt": True,
    "add_watermarker": None,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}

SCHEDULER: Mapping[str, object] = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": _DIFFUSERS,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}


def unet(dimensions: Dimensions) -> dict[str, object]:
    """The UNet's config.json."""
    _, width = dimensions.text_widths
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": _DIFFUSERS,
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_embed_type_num_heads": 64,
        "addition_time_embed_dim": dimensions.time_channels,
        "attention_head_dim": list(dimensions.unet_heads),
        "block_out_channels": list(dimensions.unet_channels),
        "center_input_sample": False,
        "class_embed_type": None,
        "class_embeddings_concat": False,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_dim": sum(dimensions.text_widths),
        "cross_attention_norm": None,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_only_cross_attention": None,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "num_attention_heads": None,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": 6 * dimensions.time_channels + width,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "default",
        "sample_size": dimensions.latent_side,
        "time_cond_proj_dim": None,
        "time_embedding_act_fn": None,
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "timestep_post_act": None,
        "transformer_layers_per_block": list(dimensions.transformer_layers),
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "upcast_attention": None,
        "use_linear_projection": True,
    }


def vae(dimensions: Dimensions) -> dict[str, object]:
    """The autoencoder's config.json."""
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": "0.20.0.dev0",
        "_name_or_path": "../sdxl-vae/",
        "act_fn": "silu",
        "block_out_channels": list(dimensions.vae_channels),
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "force_upcast": True,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": dimensions.vae_layers,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 8 * dimensions.latent_side,
        "scaling_factor": 0.13025,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }


def text_encoder(dimensions: Dimensions, number: int) -> dict[str, object]:
    """The config.json of text encoder 0 or 1."""
    width = dimensions.text_widths[number]
    return {
        "architectures": [("CLIPTextModel", "CLIPTextModelWithProjection")[number]],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "eos_token_id": 2,  # not the tokenizer's: so the published files say
        "hidden_act": ("quick_gelu", "gelu")[number],
        "hidden_size": width,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 4 * width,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": dimensions.text_heads[number],
        "num_hidden_layers": dimensions.text_layers[number],
        "pad_token_id": 1,
        "projection_dim": width,
        "torch_dtype": "float16",
        "transformers_version": _TRANSFORMERS,
        "vocab_size": max(dimensions.vocabulary, len(TOKENS)),
    }


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes a file, and its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
