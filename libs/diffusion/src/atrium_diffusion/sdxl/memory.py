"""What a picture costs in memory, and how much the device has: bounds a batch before it runs.

The engine makes a `MemoryModel` of each loaded model and gives its numbers to the batcher
and the decoder.

Where the numbers come from: at loading, the UNet and the decoder run once on PyTorch's meta
device, which computes shapes and no values, while every tensor is counted from its birth to
its death. The highest count, divided by the pixels, is the cost of a pixel; it holds for any
size and batch because every layer's output grows with the pixels and the rows, and so does
attention where it is computed in blocks, as PyTorch's fused kernels do. `SLACK` stands for
what is no tensor: the kernels' own memory and the allocator's gaps. The count was compared
with the tensors of real steps and decodings (`test_sdxl_memory.py`), and the host's slack
with the growth of processes that ran models of two widths at 512 and 768 pixels: 1.8 to 2.7
times the count, since convolutions rearrange what goes in and out. CUDA's slack is
unverified; running out is handled where it happens.
"""

import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SLACK = {"cuda": 1.5, "cpu": 3.0}
"""Times the counted tensors that a step or a decoding is thought to take, by device."""
SHARE_OF_GPU = 0.8
"""Part of a GPU's free memory that is used."""
SHARE_OF_HOST = 0.5
"""Part of the host's; other services live there."""
_SIDE = 64
"""Side of the counted latents; large enough that what does not grow with it is nothing."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryModel:
    """The memory that a model's work takes, beside its weights.

    Attributes:
        device: Where the model is.
        step_bytes_per_pixel: Of one UNet call, for each pixel of the picture and row; a
            picture with guidance has two rows.
        decode_bytes_per_pixel: Of one decoding, for each pixel of each picture.
    """

    device: torch.device
    step_bytes_per_pixel: float
    decode_bytes_per_pixel: float

    @classmethod
    def of(cls, unet: UNet2DConditionModel, vae: AutoencoderKL) -> "MemoryModel":
        """Counts what a model takes; a second or so, and no memory to speak of."""
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        slack = SLACK.get(unet.device.type, SLACK["cpu"]) / (_SIDE * scale) ** 2
        return cls(
            device=unet.device,
            step_bytes_per_pixel=slack * _count_step(unet),
            decode_bytes_per_pixel=slack * _count_decode(vae),
        )

    def step_bytes(self, pixels: int, rows: int) -> int:
        """Estimates a UNet call over rows of so many pixels each."""
        return math.ceil(self.step_bytes_per_pixel * pixels * rows)

    def decode_bytes(self, pixels: int, pictures: int = 1) -> int:
        """Estimates the decoding of pictures of so many pixels each."""
        return math.ceil(self.decode_bytes_per_pixel * pixels * pictures)

    def budget(self, mebibytes: int | None = None) -> int:
        """Bytes that steps and decoding may take: what is set, else a share of what is free."""
        if mebibytes is not None:
            return mebibytes * _MIB
        share = SHARE_OF_GPU if self.device.type == "cuda" else SHARE_OF_HOST
        return int(share * free_bytes(self.device))

    def pictures_that_fit(self, *, pixels: int, guided: bool, budget: int) -> int:
        """Tells how many pictures of one size fit into one UNet call; at least 1.

        Args:
            pixels: Of each picture.
            guided: They have guidance, so each takes two rows.
            budget: Bytes.
        """
        return max(1, int(budget // self.step_bytes(pixels, 2 if guided else 1)))


def free_bytes(device: torch.device) -> int:
    """Bytes that this process could still take on a device.

    On CUDA that is what the driver has left and what PyTorch holds without using it; on the
    host, what the system or the container leaves, whichever is less.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return host_free_bytes()


def host_free_bytes(
    *, meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int:
    """Bytes that this process could still take on the host.

    Caches of files, such as weights that were just read, count as free: the system gives
    them up when memory is short.

    Args:
        meminfo: What the system says.
        cgroup: What the container says, if this is one.
    """
    system = _figures(meminfo).get("MemAvailable:")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if system is not None:
        free = system * 1024
    limit, used = _text(cgroup / "memory.max"), _text(cgroup / "memory.current")
    if limit.isdigit() and used.isdigit():
        caches = _figures(cgroup / "memory.stat").get("inactive_file", 0)
        free = min(free, max(0, int(limit) - int(used) + caches))
    return free


def peak_bytes(work: Callable[[], object], *, existing: Sequence[Tensor] = ()) -> int:
    """Counts the most bytes of tensors that live at once while `work` runs.

    Args:
        work: Runs eagerly, on any device.
        existing: Tensors that are there before, and are not counted: weights and inputs.
    """
    with torch.no_grad(), _LiveTensors(existing) as live:
        work()
    peak: int = live.peak
    return peak


def _count_step(unet: UNet2DConditionModel) -> int:
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return _count(
        unet,
        unet.dtype,
        _empty(unet.dtype, 1, config.in_channels, _SIDE, _SIDE),
        _empty(torch.float32, 1),
        _empty(unet.dtype, 1, 77, config.cross_attention_dim),
        added_cond_kwargs={
            "text_embeds": _empty(unet.dtype, 1, pooled),
            "time_ids": _empty(unet.dtype, 1, 6),
        },
    )


def _count_decode(vae: AutoencoderKL) -> int:
    latents = _empty(vae.dtype, 1, vae.config.latent_channels, _SIDE, _SIDE)
    return _count(vae.decoder, vae.dtype, latents)


def _empty(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _count(model: nn.Module, dtype: torch.dtype, *inputs: Tensor, **more: object) -> int:
    """Counts one forward pass of `model` with weights that have shapes and no values."""
    weights = {name: _empty(dtype, *value.shape) for name, value in model.named_parameters()}
    with _BlockwiseAttention():
        return peak_bytes(
            lambda: functional_call(model, weights, inputs, more),
            existing=list(weights.values()),
        )


class _BlockwiseAttention(TorchFunctionMode):
    """Counts attention as its result alone; on the meta device it would be one huge matrix."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the memory behind every tensor that an operation returns."""

    def __init__(self, existing: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._existing = {tensor.untyped_storage()._cdata for tensor in existing}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in self._existing:
            return

        def forget(_: object) -> None:
            del self._known[key]
            self._live -= size

        self._known[key] = weakref.ref(storage, forget)
        self._live += size
        self.peak = max(self.peak, self._live)


def _figures(path: Path) -> dict[str, int]:
    """Reads lines of a name and a number."""
    lines = (line.split() for line in _text(path).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
