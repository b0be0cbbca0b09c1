"""SDXL's parts at toy width: the classes and the wiring of SDXL base 1.0, few channels."""

from dataclasses import dataclass

from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

PIXELS_PER_LATENT = 8
"""On each side; four levels of the autoencoder halve thrice."""
_TIME_WIDTH = 16
"""Of the embedding of each of SDXL's six size conditions."""
_SIZE_CONDITIONS = 6
_UNET_GROUPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """How large the networks are; the defaults make 9.5 MB in half precision.

    Attributes:
        side: Pixels of the square pictures that they learn.
        unet: Channels of the UNet's three levels, multiples of 16.
        vae: Channels of the autoencoder's four levels; the first needs at least 6.
        text: Width of each text encoder, a multiple of 4.
        text_layers: Of each text encoder; the last but one is what the UNet reads.
        window: Tokens, first and last mark included.
    """

    side: int = 128
    unet: tuple[int, int, int] = (32, 64, 128)
    vae: tuple[int, int, int, int] = (8, 16, 32, 32)
    text: int = 64
    text_layers: int = 3
    window: int = 32


def text_encoders(
    widths: Widths, tokenizer: CLIPTokenizer
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """SDXL's two; here of one size, and both read the same tokens."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=widths.window,
        hidden_size=widths.text,
        intermediate_size=4 * widths.text,
        projection_dim=widths.text,
        num_hidden_layers=widths.text_layers,
        num_attention_heads=4,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config), CLIPTextModelWithProjection(config)


def unet(widths: Widths) -> UNet2DConditionModel:
    """SDXL's three levels: convolutions, then twice with attention to the text."""
    return UNet2DConditionModel(
        sample_size=widths.side // PIXELS_PER_LATENT,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=widths.unet,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 1],
        attention_head_dim=[1, 2, 4],  # heads, in spite of the name
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=_SIZE_CONDITIONS * _TIME_WIDTH + widths.text,
        cross_attention_dim=2 * widths.text,
        norm_num_groups=_UNET_GROUPS,
    )


def autoencoder(widths: Widths) -> AutoencoderKL:
    """SDXL's autoencoder without attention; one group per norm, see `vae.start_as_identity`."""
    return AutoencoderKL(
        block_out_channels=widths.vae,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,
        sample_size=widths.side,
        scaling_factor=1.0,  # latents are normalised per channel: latents_mean, latents_std
        force_upcast=False,
        mid_block_add_attention=False,
    )


def scheduler() -> EulerDiscreteScheduler:
    """How it is sampled: SDXL's noise levels, stretched so that the first step sees only noise.

    Zero terminal SNR, v-prediction and trailing timesteps belong together
    (arXiv:2305.08891); without them a model never learns to choose the mean brightness.
    """
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
        # For Karras' spacing alone: it would spend most steps between here and pure noise
        # (sigma 4096), where there is nothing to see yet.
        sigma_max=30.0,
    )
