"""The vocoder of XTTS, decoding only what is new; `xtts_model.py` puts it in.

`Xtts.inference_stream` decodes all audio since the start of the piece for every chunk that
it gives, so the work grows with the square of the length (200 tokens on one CPU core: 72 s
instead of 12). The vocoder is convolutional: a sample depends on few frames around it, and the
library reads nothing before the overlap with the last chunk. What lies earlier is left blank.
"""

import torch

SAMPLES_PER_FRAME = 256
"""Hop of the vocoder at its output rate."""

_OVERLAP_FRAMES = 4
"""The library fades 1024 samples of two chunks into each other."""

_CONTEXT_FRAMES = 16
"""Frames before a sample that it may depend on. By kernels and dilations 14: 3 of the first
convolution, 10 of the blocks at 8 samples a frame, 1 of all later ones."""


class StreamingVocoder(torch.nn.Module):
    """Stands in for `HifiDecoder.waveform_decoder`; always computes in float32."""

    def __init__(self, decoder: torch.nn.Module) -> None:
        """Wraps a `HifiganGenerator`."""
        super().__init__()
        self.decoder = decoder
        self._decoded = 0

    def begin(self) -> None:
        """A new piece: nothing of it was decoded yet."""
        self._decoded = 0

    def forward(self, frames: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """Decodes the frames that were not there in the last call, and the overlap.

        Args:
            frames: All frames since `begin`, shape (1, channels, n).
            g: Speaker embedding, shape (1, channels, 1).

        Returns:
            Shape (1, 1, 256 n); zeros where it was decoded before.
        """
        frames = frames if frames.ndim == 3 else frames[None]
        count = frames.shape[-1]
        known = max(0, min(self._decoded, count) - _OVERLAP_FRAMES)
        start = max(0, known - _CONTEXT_FRAMES)
        fresh: torch.Tensor = self.decoder(frames[..., start:].float(), g=g.float())
        self._decoded = count
        return torch.nn.functional.pad(fresh, (start * SAMPLES_PER_FRAME, 0))
