"""What a catalogue entry may set for the transformers engine (its `options`)."""

from typing import Literal

import torch
from pydantic import Field

from atrium_common.engine_options import EngineOptions

DType = Literal["auto", "float32", "bfloat16", "float16"]


class GeneratorOptions(EngineOptions):
    """Options of a chat or completion model.

    Attributes:
        device: Where it runs, e.g. ``"cuda:0"``; default is the engine's.
        threads: CPU threads that one operation may use.
        slots: Choices that run at once.
        kv_cache_mib: Memory for keys and values; default is 1 GiB on a CPU and half of
            what is free on a GPU.
        prompt_chunk: Prompt tokens read per step while others write; small keeps their
            streams smooth. Default 64 on a CPU, 512 on a GPU.
        prompt_chunk_alone: The same while nobody writes; it bounds how long a cancel
            takes. Default 256 on a CPU, 4096 on a GPU.
        default_temperature: For requests that name none; default is the model's own.
        default_top_p: Likewise.
    """

    device: str | None = None
    threads: int = Field(default=1, ge=1, le=256)
    slots: int = Field(default=16, ge=1, le=512)
    kv_cache_mib: int | None = Field(default=None, ge=1)
    prompt_chunk: int | None = Field(default=None, ge=1)
    prompt_chunk_alone: int | None = Field(default=None, ge=1)
    default_temperature: float | None = Field(default=None, ge=0, le=2)
    default_top_p: float | None = Field(default=None, gt=0, le=1)


class EmbedderOptions(EngineOptions):
    """Options of an embedding model.

    Attributes:
        device: Where it runs; default is the engine's.
        threads: CPU threads that one operation may use.
        batch_tokens: Most tokens of one forward, padding included.
        matryoshka: True if leading dimensions alone are good vectors too.
    """

    device: str | None = None
    threads: int = Field(default=1, ge=1, le=256)
    batch_tokens: int = Field(default=2048, ge=64)
    matryoshka: bool = False


def dtype_for(name: str | None, device: torch.device) -> torch.dtype:
    """Chooses the numeric type.

    ``auto`` is bfloat16 on a GPU and float32 on a CPU: without bf16 instructions a CPU
    reads prompts five to seven times slower in bfloat16 and writes about five times
    slower at 16 callers (measured with SmolLM2 on AVX2), and float32 answers hardly
    depend on who else is in the batch.
    """
    if name in (None, "auto"):
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in types:
        raise ValueError(f"unknown dtype {name!r}; known: auto, {', '.join(types)}")
    return types[name]
