"""Stage two: the UNet and both text encoders, together.

They learn v-prediction over the scheduler's own noise levels. Some examples are twins: the
picture under the noise has other colours than the words say, and the words are right. That is
what makes an edit at low strength recolour a shape that it keeps.
"""

from random import Random

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from atrium_diffusion.testing.shapes import varied_caption
from starter_trainer.fit import Adam, step_chance
from starter_trainer.latents import Twins
from starter_trainer.networks import PIXELS_PER_LATENT, scheduler
from starter_trainer.words import token_ids

ADAM = Adam(peak=1.2e-3, floor=2e-5, warm_up=100, betas=(0.9, 0.99), weight_decay=1e-3)
BATCH = 64
_WORDLESS = 0.1
"""Share of examples without words: what guidance compares with."""
_RECOLOURED = 0.3
"""Share of examples that start from their twin."""
_EDITS_BEGIN = (200, 500)
"""Timesteps at which a recolouring edit may begin: strength 0.2 to 0.5."""


class Painter(nn.Module):
    """The UNet behind both text encoders, wired as SDXL's pipelines wire them."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        first: CLIPTextModel,
        second: CLIPTextModelWithProjection,
    ) -> None:
        super().__init__()
        self.unet, self.first, self.second = unet, first, second

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, worded: Tensor) -> Tensor:
        """Predicts v.

        Args:
            noisy: Latents, shape (b, 4, h, w).
            timesteps: Shape (b,).
            tokens: Shape (b, window).
            worded: 1 where the words count, 0 where they are left out; shape (b,). Left-out
                words are zeros, as pipelines encode an empty prompt.
        """
        one = self.first(tokens, output_hidden_states=True)
        two = self.second(tokens, output_hidden_states=True)
        hidden = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        height, width = (PIXELS_PER_LATENT * side for side in noisy.shape[-2:])
        sizes = torch.tensor([height, width, 0.0, 0.0, height, width])
        predicted: Tensor = self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=hidden * worded[:, None, None],
            added_cond_kwargs={
                "text_embeds": two.text_embeds * worded[:, None],
                "time_ids": sizes.expand(len(noisy), -1),
            },
            return_dict=False,
        )[0]
        return predicted


class DenoiserTask:
    """Teaches a painter from twins."""

    def __init__(
        self, painter: Painter, tokenizer: CLIPTokenizer, twins: Twins, *, batch: int = BATCH
    ) -> None:
        self.name, self.module, self.adam = "denoiser", painter, ADAM
        self._painter, self._tokenizer, self._twins, self._batch = painter, tokenizer, twins, batch
        self._kept = scheduler().alphas_cumprod
        """Share of the picture's variance at each timestep; the rest is noise's."""

    def loss(self, step: int) -> Tensor:
        """Mean squared error of v."""
        random, generator = step_chance(self.name, step)
        places = [random.randrange(len(self._twins.scenes)) for _ in range(self._batch)]
        sides = [random.randrange(2) for _ in range(self._batch)]
        tokens = self._tokens(places, sides, random)
        clean = self._twins.latents[places, sides]
        twin = self._twins.latents[places, [1 - side for side in sides]]
        worded = (torch.rand(self._batch, generator=generator) >= _WORDLESS).float()
        timesteps, noise = self._noise(clean, twin, worded, generator)
        kept = self._kept[timesteps][:, None, None, None]
        picture_share, noise_share = kept.sqrt(), (1.0 - kept).sqrt()
        noisy = picture_share * clean + noise_share * noise
        target = picture_share * noise - noise_share * clean
        return F.mse_loss(self._painter(noisy, timesteps, tokens, worded), target)

    def _tokens(self, places: list[int], sides: list[int], random: Random) -> Tensor:
        scenes = [
            self._twins.scenes[place][side] for place, side in zip(places, sides, strict=True)
        ]
        return token_ids(self._tokenizer, [varied_caption(scene, random) for scene in scenes])

    def _noise(
        self, clean: Tensor, twin: Tensor, worded: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Timesteps, shape (b,), and what covers the clean latents, of their shape.

        An edit that begins at timestep s starts from ``twin + sigma_s * noise``. Seen from the
        clean latents, that is ``clean + sigma_s * (noise + (twin - clean) / sigma_s)``: the
        difference of colours is a part of the noise, and the sampler takes it away with it.
        """
        batch = len(clean)
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(0, len(self._kept), (batch,), generator=generator)
        edited = (torch.rand(batch, generator=generator) < _RECOLOURED) & worded.bool()
        begins = torch.randint(*_EDITS_BEGIN, (batch,), generator=generator)
        shares = torch.rand(batch, generator=generator)
        timesteps = torch.where(edited, (begins * shares).long(), timesteps)
        sigma = ((1.0 - self._kept[begins]) / self._kept[begins]).sqrt()
        difference = (twin - clean) / sigma[:, None, None, None]
        return timesteps, torch.where(edited[:, None, None, None], noise + difference, noise)
