"""Stage one: the autoencoder, pictures to latents and back.

From an ordinary start it needs hours to find out that latents should hold colours. So it starts
as the plainest autoencoder there is, mean of 8 by 8 pixels and back, and learns the edges.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from PIL import Image
from torch import Tensor, nn

from atrium_diffusion.domain import Pixels
from atrium_diffusion.testing.judge import judge
from atrium_diffusion.testing.shapes import Scene, random_scene, render, seeded
from starter_trainer.fit import Adam, step_chance
from starter_trainer.networks import PIXELS_PER_LATENT

ADAM = Adam(peak=1e-3, floor=2e-5, warm_up=100, betas=(0.9, 0.98), weight_decay=0.0)
BATCH = 4
_CONSTANT = 8.0
"""What the two reference channels hold, plus and minus."""
_SMOOTH = 4.0
"""Far enough up the SiLU that it is close to a straight line, SiLU(x + 4) = x + 3.93."""
_SMOOTH_VALUE = 3.93
_CHANCE_KEPT = 0.3
"""Share of the usual random weights that is left beside the identity, to learn from."""
_COLOURS = 3
_EDGE_LEVEL = 0.1
_EDGE_WEIGHT = 5.0
_LATENT_NOISE = 0.02
"""Noise in the latents, as a share of their deviation, that the decoder learns to bear."""
_LATENT_PULL = 1e-4
_LATENTS = 4


def to_tensor(pictures: Iterable[Image.Image]) -> Tensor:
    """Pictures as the autoencoder takes them: shape (b, 3, h, w), -1 to 1."""
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_pixels(tensor: Tensor) -> Sequence[Pixels]:
    """The reverse of `to_tensor`, clipped and rounded."""
    levels = ((tensor.clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).numpy())


def _pass_on(conv: nn.Conv2d, reference: Sequence[int], *, halves: bool = False) -> None:
    """Makes a convolution hand its channels on: colours purely, the others with some chance."""
    weight, bias = conv.weight, conv.bias
    weight.mul_(_CHANCE_KEPT)
    weight[:, reference] = 0.0
    weight[reference] = 0.0
    weight[:_COLOURS] = 0.0
    middle = weight.shape[-1] // 2
    for channel in range(min(weight.shape[0], weight.shape[1])):
        if halves:  # the mean of 2 by 2 pixels; diffusers pads right and below
            weight[channel, channel, 0:2, 0:2] += 0.25
        else:
            weight[channel, channel, middle, middle] += 1.0
    if bias is not None:
        bias.zero_()


def _begin(conv: nn.Conv2d, reference: Sequence[int]) -> None:
    """The first convolution: colours go on as they are, the reference channels are constant."""
    assert conv.bias is not None  # noqa: S101 - diffusers makes it with one
    given = conv.weight.shape[1]
    conv.weight.mul_(_CHANCE_KEPT)
    conv.weight[reference] = 0.0
    conv.weight[:given] = 0.0
    for channel in range(given):
        conv.weight[channel, channel, 1, 1] = 1.0
    conv.bias.zero_()
    conv.bias[reference] = torch.tensor([_CONSTANT, -_CONSTANT])


def _end(norm: nn.GroupNorm, conv: nn.Conv2d, reference: Sequence[int]) -> None:
    """The last norm, SiLU and convolution: undo the norm's scale, stay on the straight part."""
    assert conv.bias is not None  # noqa: S101 - diffusers makes it with one
    norm.weight.fill_((2 * _CONSTANT**2 / norm.num_channels) ** 0.5)
    norm.bias.fill_(_SMOOTH)
    conv.weight.mul_(_CHANCE_KEPT * 0.3)
    conv.weight[:_COLOURS] *= 0.2
    conv.weight[:, reference] = 0.0
    for channel in range(_COLOURS):
        conv.weight[channel, channel, 1, 1] += 1.0
    conv.bias.zero_()
    conv.bias.sub_(_SMOOTH_VALUE * conv.weight.sum((1, 2, 3)))


@torch.no_grad()
def start_as_identity(vae: AutoencoderKL) -> None:
    """Makes a fresh autoencoder shrink pictures by box averages and enlarge them again.

    Residual branches start near zero; shortcuts and resamplers hand on what they get. A group
    norm would wash the absolute colour out, so two reference channels hold +8 and -8 and
    dominate the (single) group's deviation: it is then a known constant, which `_end` undoes.
    """
    first = vae.config.block_out_channels[0]
    reference = [first - 2, first - 1]
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight.mul_(0.1)
            module.conv2.bias.zero_()
            if module.conv_shortcut is not None:
                _pass_on(module.conv_shortcut, reference)
        elif isinstance(module, Downsample2D):
            _pass_on(module.conv, reference, halves=True)
        elif isinstance(module, Upsample2D):
            _pass_on(module.conv, reference)
    for net in (vae.encoder, vae.decoder):
        _begin(net.conv_in, reference)
        _end(net.conv_norm_out, net.conv_out, reference)
    for conv in (vae.quant_conv, vae.post_quant_conv):
        conv.weight.copy_(torch.eye(conv.weight.shape[0])[:, :, None, None])
        conv.bias.zero_()


class VaeTask:
    """Teaches an autoencoder to give pictures back; every step renders new ones."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.name, self.module, self.adam = "vae", vae, ADAM
        self._vae = vae

    def loss(self, step: int) -> Tensor:
        """Absolute and squared error, six times as heavy near edges."""
        random, generator = step_chance(self.name, step)
        side = self._vae.config.sample_size
        scenes = [random_scene(random) for _ in range(BATCH)]
        pictures = to_tensor(render(scene, random, side=side) for scene in scenes)
        flat = F.interpolate(
            F.avg_pool2d(pictures, PIXELS_PER_LATENT), scale_factor=PIXELS_PER_LATENT
        )
        edges = (pictures - flat).abs().amax(1, keepdim=True) > _EDGE_LEVEL
        weight = 1.0 + _EDGE_WEIGHT * edges.float()
        latents = self._vae.encode(pictures).latent_dist.mean
        noise = torch.randn(latents.shape, generator=generator)
        noisy = latents + _LATENT_NOISE * latents.detach().std() * noise
        error = self._vae.decode(noisy).sample - pictures
        loss: Tensor = (weight * (error.abs() + error**2)).mean()
        loss += _LATENT_PULL * latents.square().mean()
        return loss


@torch.no_grad()
def settle(vae: AutoencoderKL, latents: Tensor) -> None:
    """Writes into an autoencoder what its latents are like.

    Args:
        vae: It gets the latents' mean and deviation by channel, which pipelines use to
            normalise them, and a variance: that of the noise it has learnt to bear. (The
            loss does not teach the encoder's own, and edits draw from it.)
        latents: Means of many pictures, shape (n, 4, h, w).
    """
    deviation = latents.std((0, 2, 3))
    vae.register_to_config(
        latents_mean=latents.mean((0, 2, 3)).tolist(), latents_std=deviation.tolist()
    )
    vae.quant_conv.weight[_LATENTS:] = 0.0
    vae.quant_conv.bias[_LATENTS:] = 2.0 * (_LATENT_NOISE * deviation).log()


@torch.no_grad()
def faithfulness(vae: AutoencoderKL, *, pictures: int = 64) -> tuple[float, float]:
    """How well new pictures come back: PSNR in dB, and the share that the judge accepts."""
    random = seeded("faithfulness")
    scenes: list[Scene] = [random_scene(random) for _ in range(pictures)]
    given = to_tensor(render(scene, random, side=vae.config.sample_size) for scene in scenes)
    back = vae.decode(vae.encode(given).latent_dist.mean).sample.clamp(-1, 1)
    psnr = -10.0 * torch.log10(F.mse_loss(back, given) / 4.0).item()
    verdicts = [judge(seen, scene) for seen, scene in zip(to_pixels(back), scenes, strict=True)]
    return psnr, sum(verdict.right for verdict in verdicts) / pictures
