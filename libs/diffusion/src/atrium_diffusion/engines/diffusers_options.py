"""What the catalogue says of an SDXL model; see `engines/diffusers.py`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.engine_options import EngineOptions, read_options
from atrium_diffusion.domain import ModelLimits, SchedulerKind
from atrium_diffusion.planning import MAX_STEPS, SIDE_MULTIPLE

DTYPES = ("float32", "float16", "bfloat16")
"""What an entry's `dtype` may be."""

_OF_REQUESTS = (
    "native_width",
    "native_height",
    "min_side",
    "max_side",
    "max_pixels",
    "default_steps",
    "default_guidance_scale",
    "default_scheduler",
)
"""Options that say what requests may ask for and get, not how the model runs."""


class DiffusersOptions(EngineOptions):
    """Options of the engine `diffusers`, with their defaults, which are SDXL's."""

    native_width: int = Field(default=1024, ge=64, multiple_of=SIDE_MULTIPLE)
    """Width that it was trained on, in pixels; a request's default."""

    native_height: int = Field(default=1024, ge=64, multiple_of=SIDE_MULTIPLE)
    """Height that it was trained on, in pixels; a request's default."""

    min_side: int = Field(default=512, ge=64, multiple_of=SIDE_MULTIPLE)
    """Least pixels of a side."""

    max_side: int = Field(default=2048, le=16_384, multiple_of=SIDE_MULTIPLE)
    """Most pixels of a side."""

    max_pixels: int = Field(default=2_097_152, ge=4096)
    """Most pixels of a picture, width times height."""

    default_steps: int = Field(default=30, ge=1, le=MAX_STEPS)
    """Steps where a request names none."""

    default_guidance_scale: float = Field(default=5.0, ge=0, le=30, allow_inf_nan=False)
    """Guidance where a request names none."""

    default_scheduler: SchedulerKind = SchedulerKind.EULER
    """Scheduler where a request names none."""

    max_batch: int = Field(default=8, ge=1, le=64)
    """Most pictures that take a step together."""

    memory_budget_mib: int | None = Field(default=None, ge=64)
    """Memory that steps and decoding may take beside the weights; unset takes what is free."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; ``auto`` takes a GPU if there is one."""

    device_index: int = Field(default=0, ge=0)
    """Which GPU."""

    variant: str | None = Field(default=None, pattern=r"^[a-z0-9]+$")
    """Which of the repository's files to take, e.g. ``fp16``; unset takes the plain ones."""

    vae: Path | None = None
    """Absolute path of another autoencoder's folder, e.g. of one that half precision does not
    overflow."""

    threads: int = Field(default=0, ge=0)
    """Threads on a CPU; 0 leaves it to torch, within the container's limit. It holds for the
    whole process."""

    @field_validator("vae")
    @classmethod
    def _path_is_absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("the path is not absolute")
        return path

    @model_validator(mode="after")
    def _sizes_hold(self) -> Self:
        for side in (self.native_width, self.native_height):
            if not self.min_side <= side <= self.max_side:
                raise ValueError("the native size is outside of min_side and max_side")
        if self.native_width * self.native_height > self.max_pixels:
            raise ValueError("the native size has more pixels than max_pixels")
        return self

    @classmethod
    def of(cls, entry: ModelEntry) -> Self:
        """Reads an entry's options.

        Raises:
            CatalogueError: An option or the entry's `dtype` is unknown or out of range.
        """
        if entry.dtype is not None and entry.dtype not in DTYPES:
            raise CatalogueError(
                f"{entry.id}: dtype: {entry.dtype!r} is not one of {', '.join(DTYPES)}"
            )
        return read_options(cls, entry)

    def loading(self) -> Self:
        """Leaves what loading weights depends on; the rest is as if nothing had been said.

        Entries may share weights and still differ in the sizes and defaults of requests.
        """
        plain = {name: type(self).model_fields[name].default for name in _OF_REQUESTS}
        return self.model_copy(update=plain)

    def limits(self, model: str, *, loras: tuple[str, ...]) -> ModelLimits:
        """Tells callers what the model with this id takes."""
        return ModelLimits(
            model=model,
            native_width=self.native_width,
            native_height=self.native_height,
            min_side=self.min_side,
            max_side=self.max_side,
            max_pixels=self.max_pixels,
            default_steps=self.default_steps,
            default_guidance_scale=self.default_guidance_scale,
            default_scheduler=self.default_scheduler,
            loras=loras,
        )
