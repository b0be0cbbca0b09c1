"""What every family needs to load a model: numeric types, 8 bits, its generation config.

Only safetensors are read, only from the disk, and no code that comes with weights is run.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig, GenerationConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from atrium_common.errors import Unavailable
from atrium_img2text.engines.captioning.model import ModelDefaults

_TYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def device_of(name: str | None) -> torch.device:
    """Returns the device of this name; without one a GPU, else the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def loading_options(dtype: str | None, device: torch.device) -> dict[str, Any]:
    """Returns the keywords of `from_pretrained` that load weights in a type onto a device.

    Args:
        dtype: Of the catalogue entry: float32, bfloat16, float16, int8 (weights of linear
            layers in 8 bits, by bitsandbytes; the rest in float16); ``None`` is float32 on a
            CPU, else float16.
        device: Where the model goes.

    Raises:
        Unavailable: The type is not known, or can't be had here; one line for the operator.
    """
    keywords: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    if dtype == "int8":
        _check_int8(device)
        config = BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
        placed = {"quantization_config": config, "device_map": {"": device}}
        return keywords | placed | {"dtype": torch.float16}
    if dtype is None:
        dtype = "float32" if device.type == "cpu" else "float16"
    if dtype not in _TYPES:
        known = ", ".join([*_TYPES, "int8"])
        raise Unavailable(f"unknown dtype {dtype!r}; known: {known}", reason="MODEL_FAILED")
    return keywords | {"dtype": _TYPES[dtype]}


@contextmanager
def without_bars() -> Iterator[None]:
    """Loads without progress bars: they would stand in a service's log."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def place(model: PreTrainedModel, device: torch.device) -> None:
    """Moves a model that was loaded by `loading_options` to its device, ready to generate."""
    if not getattr(model, "is_quantized", False):  # those are where they belong
        model.to(device)  # type: ignore[arg-type]
    model.eval()  # type: ignore[no-untyped-call]


def model_defaults(config: GenerationConfig | None) -> ModelDefaults:
    """Reads how a model chooses words of its own accord."""
    if config is None:
        return ModelDefaults()
    draws = bool(config.do_sample)
    beams = config.num_beams or 1
    return ModelDefaults(
        max_tokens=config.max_new_tokens,
        temperature=(1.0 if config.temperature is None else config.temperature) if draws else 0.0,
        top_p=config.top_p if draws else None,
        beams=beams if not draws else 1,
        repetition_penalty=config.repetition_penalty,
    )


def token_ids(*given: int | Iterable[int] | None) -> frozenset[int]:
    """Joins token ids from configurations, which hold one, several or none."""
    ids: set[int] = set()
    for value in given:
        if isinstance(value, int):
            ids.add(value)
        elif value is not None:
            ids.update(value)
    return frozenset(ids)


def plain_generation_config(*configs: GenerationConfig | None) -> GenerationConfig:
    """Returns a generation config that adds nothing to a request's: special tokens alone.

    Args:
        configs: Where they stand; the first one that names a token says which.
    """
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    given: dict[str, Any] = {}
    for name in names:
        told = [getattr(config, name, None) for config in configs]
        given[name] = next((token for token in told if token is not None), None)
    return GenerationConfig(**given)  # type: ignore[no-untyped-call]


def _check_int8(device: torch.device) -> None:
    if device.type != "cuda":
        raise Unavailable("dtype int8 needs a CUDA device", reason="MODEL_FAILED")
    for library in ("bitsandbytes", "accelerate"):
        if find_spec(library) is None:
            raise Unavailable(f"dtype int8 needs {library}", reason="MODEL_FAILED")
