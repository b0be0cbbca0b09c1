"""Decides everything about a request before any work, or refuses it by name.

Engines that know their model's limits make their `RequestPlan` with this; nothing here
needs weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from atrium_common.catalogue import AdapterEntry
from atrium_common.errors import InvalidArgument, NotFound
from atrium_diffusion.domain import (
    AppliedLora,
    ModelLimits,
    PictureJob,
    PicturePlan,
    RequestPlan,
    SchedulerKind,
)

SIDE_MULTIPLE = 8
"""Pixels of a side per latent."""
MAX_STEPS = 150
"""Of any scheduler."""


def any_steps(scheduler: SchedulerKind) -> int:
    """Returns `MAX_STEPS`, for engines whose schedulers all take so many."""
    del scheduler
    return MAX_STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Plans the requests of one model.

    Attributes:
        limits: What the model takes, and its defaults.
        adapters: What may be applied to it, by id.
        digest: SHA-256 of its weights, or ``""``.
        engine: Engine with its version, for the record.
        draw_seed: Draws a seed that leaves room for those of 16 pictures.
        most_steps: Most steps that a scheduler takes.
    """

    limits: ModelLimits
    adapters: Mapping[str, AdapterEntry]
    digest: str
    engine: str
    draw_seed: Callable[[], int]
    most_steps: Callable[[SchedulerKind], int] = any_steps

    def plan(self, job: PictureJob) -> RequestPlan:
        """Plans a request.

        Raises:
            NotFound: There is no such LoRA.
            InvalidArgument: The model can't do what is asked; `field` names it.
        """
        limits, wanted = self.limits, job.denoising
        scheduler = wanted.scheduler or limits.default_scheduler
        steps = self._steps(wanted.steps, scheduler)
        guidance = wanted.guidance_scale
        pictures = tuple(self._pictures(job, steps))
        native = (limits.native_width, limits.native_height)
        return RequestPlan(
            job=job,
            pictures=pictures,
            schedule_steps=steps,
            guidance_scale=limits.default_guidance_scale if guidance is None else guidance,
            scheduler=scheduler,
            loras=self._loras(job),
            unusual_size=any((one.width, one.height) != native for one in pictures),
            digest=self.digest,
            engine=self.engine,
        )

    def _steps(self, asked: int | None, scheduler: SchedulerKind | None) -> int:
        most = MAX_STEPS if scheduler is None else self.most_steps(scheduler)
        if asked is None:
            return min(self.limits.default_steps, most)
        if not 1 <= asked <= most:
            raise InvalidArgument(
                f"The scheduler {scheduler} takes from 1 to {most} steps, not {asked}.",
                field="denoising.steps",
            )
        return asked

    def _loras(self, job: PictureJob) -> tuple[AppliedLora, ...]:
        """Finds the adapters; by id, so that the order of asking changes nothing."""
        for use in job.denoising.loras:
            if use.id not in self.adapters:
                raise NotFound(
                    f"The model {job.model!r} has no LoRA {use.id!r}.",
                    reason="LORA_NOT_FOUND",
                    field="denoising.loras",
                )
        return tuple(
            AppliedLora(id=use.id, digest=self.adapters[use.id].digest, scale=use.scale)
            for use in sorted(job.denoising.loras, key=lambda use: use.id)
        )

    def _pictures(self, job: PictureJob, steps: int) -> list[PicturePlan]:
        first = self.draw_seed() if job.denoising.seed is None else job.denoising.seed
        if not job.sources:
            width = job.width or self.limits.native_width
            height = job.height or self.limits.native_height
            self._check_size(width, height)
            return [
                PicturePlan(index=i, width=width, height=height, seed=first + i, steps=steps)
                for i in range(job.n)
            ]
        pictures: list[PicturePlan] = []
        for source in job.sources:
            height, width = source.pixels.shape[:2]
            self._check_size(width, height)
            pictures += (
                PicturePlan(
                    index=index,
                    width=width,
                    height=height,
                    seed=first + index,
                    steps=edit_steps(steps, job.strength),
                    source=source,
                )
                for index in range(len(pictures), len(pictures) + job.n)
            )
        return pictures

    def _check_size(self, width: int, height: int) -> None:
        limits = self.limits
        for field, side in (("width", width), ("height", height)):
            if not limits.min_side <= side <= limits.max_side or side % SIDE_MULTIPLE:
                raise InvalidArgument(
                    f"The {field} is a multiple of {SIDE_MULTIPLE} from {limits.min_side} to "
                    f"{limits.max_side} pixels, not {side}.",
                    field=field,
                )
        if width * height > limits.max_pixels:
            raise InvalidArgument(
                f"A picture has at most {limits.max_pixels} pixels, not {width} x {height}.",
                field="width",
            )


def edit_steps(steps: int, strength: float) -> int:
    """Returns the steps that an edit takes of a schedule, as diffusers' pipelines count.

    Args:
        steps: Of the whole schedule.
        strength: 0 takes none, anything above takes at least one.
    """
    if strength == 0:
        return 0
    return max(1, min(int(steps * strength), steps))
