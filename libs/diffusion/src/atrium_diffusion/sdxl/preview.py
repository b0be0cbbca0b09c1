"""Early views of a picture: a linear map from latents to colours, instead of the decoder.

The map is fitted once per loaded model, so that it suits any autoencoder; `model.py`
calls it at loading and for every preview.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from atrium_diffusion.domain import Pixels
from atrium_diffusion.sdxl.vae import VaeCodec

_PICTURES = 8
_LATENT_SIDE = 16
"""Latents of a side of the pictures that are fitted to: 256 samples from each."""
_CELLS = 4
"""Colours of a side in these pictures."""
_SEED = 0


class LatentPreview:
    """Projects latents to small pictures."""

    def __init__(self, weights: Tensor, bias: Tensor) -> None:
        """Takes the map.

        Args:
            weights: Shape (latent channels, 3).
            bias: Shape (3,); colours are -1 to 1.
        """
        self._weights = weights
        self._bias = bias

    @classmethod
    def fit(cls, codec: VaeCodec) -> "LatentPreview":
        """Fits the map by least squares to what the encoder makes of random colours."""
        draw = np.random.default_rng(_SEED)
        noise = torch.Generator().manual_seed(_SEED)
        latents, colours = [], []
        for index in range(_PICTURES):
            picture = _picture(draw, codec.scale * _LATENT_SIDE, smooth=index % 2 == 0)
            encoded = codec.encode(picture, noise)
            latents.append(encoded[0].flatten(1).T.double().cpu())
            colours.append(_shrunk(picture, codec.scale))
        known = torch.cat(latents)
        known = torch.cat([known, known.new_ones(len(known), 1)], dim=1)
        solution = torch.linalg.lstsq(known, torch.cat(colours)).solution.float().to(encoded.device)
        return cls(solution[:-1], solution[-1])

    @torch.no_grad()
    def __call__(self, latents: Tensor, max_side: int) -> Pixels:
        """Projects latents.

        Args:
            latents: Shape (1, c, h, w). Noisy ones of a scheduler that keeps the noise's
                full width are narrowed, so that the picture is not lost beyond black and
                white.
            max_side: Longest side of the result in pixels, whatever the latents' size.
        """
        values = latents[0].float()
        values = values / values.std(dim=(1, 2)).square().mean().sqrt().clamp(min=1.0)
        colours = torch.einsum("chw,cr->rhw", values, self._weights) + self._bias[:, None, None]
        height, breadth = colours.shape[1:]
        factor = max_side / max(height, breadth)
        size = (max(1, round(height * factor)), max(1, round(breadth * factor)))
        image = interpolate(colours[None], size=size, mode="bilinear", antialias=factor < 1)
        image = (image[0] * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0)
        pixels: Pixels = (image * 255).round().to(torch.uint8).cpu().numpy()
        return pixels


def _picture(draw: np.random.Generator, side: int, *, smooth: bool) -> Pixels:
    """Draws a picture of random colours: flowing into each other, or in squares."""
    cells = torch.from_numpy(draw.uniform(0, 255, (1, 3, _CELLS, _CELLS)))
    mode = "bilinear" if smooth else "nearest"
    image = interpolate(cells, size=(side, side), mode=mode)[0].permute(1, 2, 0)
    pixels: Pixels = image.round().to(torch.uint8).numpy()
    return pixels


def _shrunk(picture: Pixels, scale: int) -> Tensor:
    """Averages the colours under each latent: shape (latents, 3), -1 to 1."""
    side = len(picture) // scale
    cells = picture.reshape(side, scale, side, scale, 3).mean(axis=(1, 3))
    return torch.from_numpy(cells.reshape(-1, 3) / 127.5 - 1.0)
