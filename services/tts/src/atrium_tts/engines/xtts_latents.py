"""What XTTS knows of a voice, as bytes that can be kept: safetensors, never executed.

`XttsEngine.clone` packs them, `speak` unpacks what the voice store gives back.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from atrium_common.errors import InvalidArgument

_CONDITIONING = "gpt_cond_latent"
_EMBEDDING = "speaker_embedding"
_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """One voice.

    Attributes:
        conditioning: How it speaks, shape (1, positions, width of the transformer).
        embedding: What it sounds like, shape (1, 512, 1).
    """

    conditioning: NDArray[np.float32]
    embedding: NDArray[np.float32]

    def pack(self) -> bytes:
        """Returns the voice as safetensors."""
        return save({_CONDITIONING: self.conditioning, _EMBEDDING: self.embedding})


def unpack(data: bytes, *, width: int, embedding: int) -> Latents:
    """Reads a voice.

    Args:
        data: What `Latents.pack` gave.
        width: Channels of the model's transformer.
        embedding: Values of the model's speaker embedding.

    Raises:
        InvalidArgument: They are not a voice of such a model; `field` is ``"voice"``.
    """
    tensors: dict[str, NDArray[np.generic]] = {}
    if len(data) <= _MAX_BYTES:
        try:
            tensors = load(data)
        except SafetensorError as err:
            raise _refused() from err
    if set(tensors) != {_CONDITIONING, _EMBEDDING}:
        raise _refused()
    conditioning, speaker = tensors[_CONDITIONING], tensors[_EMBEDDING]
    fits = (
        conditioning.ndim == 3
        and conditioning.shape[0] == 1
        and 1 <= conditioning.shape[1] <= 1024
        and conditioning.shape[2] == width
        and speaker.shape == (1, embedding, 1)
    )
    if not fits or not all(_is_sound(tensor) for tensor in tensors.values()):
        raise _refused()
    return Latents(
        conditioning=conditioning.astype(np.float32), embedding=speaker.astype(np.float32)
    )


def _is_sound(tensor: NDArray[np.generic]) -> bool:
    return tensor.dtype == np.float32 and bool(np.isfinite(tensor.astype(np.float32)).all())


def _refused() -> InvalidArgument:
    return InvalidArgument(
        "The voice was not made by this model; make it anew.",
        reason="VOICE_OF_ANOTHER_MODEL",
        field="voice",
    )
