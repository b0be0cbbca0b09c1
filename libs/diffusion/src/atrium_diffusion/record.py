"""Everything that made a picture, so that it can be made again.

`finishing.py` attaches it to every picture and, when asked, writes it into the file;
`wire.py` writes it as `atrium.common.v1.ImageRecord`.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self

from atrium_diffusion.domain import AppliedLora, PicturePlan, RequestPlan, SchedulerKind

TEXT_KEY = "atrium"
"""Keyword of the PNG text chunk that holds a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRecord:
    """The facts behind one picture; mirrors `atrium.common.v1.ImageRecord`.

    Attributes:
        model: Catalogue id.
        model_digest: SHA-256 of the model's main weight file; ``""`` if unknown.
        engine: Engine with its version.
        prompt: What it was drawn from. The caller's text: never logged.
        negative_prompt: What it was to avoid.
        width: Pixels.
        height: Pixels.
        seed: Of this picture.
        steps: Steps taken; for an edit fewer than `schedule_steps`.
        guidance_scale: Guidance that was applied.
        scheduler: Scheduler that was used; ``None`` where a provider does not say.
        loras: Adapters that were applied.
        strength: Of an edit; 0 for a picture from text.
        source_digest: SHA-256 of the upload that was edited; ``""`` for none.
        mask_digest: SHA-256 of the mask's upload; ``""`` for none.
        deterministic: True if it was computed in a batch of its own.
        unusual_size: True if the model was not trained on its size.
        schedule_steps: Steps of the whole noise range, as asked for.
    """

    model: str
    model_digest: str
    engine: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    steps: int
    guidance_scale: float
    scheduler: SchedulerKind | None
    loras: tuple[AppliedLora, ...]
    strength: float
    source_digest: str
    mask_digest: str
    deterministic: bool
    unusual_size: bool
    schedule_steps: int

    @classmethod
    def of(cls, plan: RequestPlan, picture: PicturePlan) -> Self:
        """Collects the facts of a picture of a request."""
        job, source = plan.job, picture.source
        return cls(
            model=job.model,
            model_digest=plan.digest,
            engine=plan.engine,
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            width=picture.width,
            height=picture.height,
            seed=picture.seed,
            steps=picture.steps,
            guidance_scale=plan.guidance_scale,
            scheduler=plan.scheduler,
            loras=plan.loras,
            strength=job.strength if source else 0.0,
            source_digest=source.digest if source else "",
            mask_digest=source.mask_digest if source else "",
            deterministic=job.denoising.deterministic,
            unusual_size=plan.unusual_size,
            schedule_steps=plan.schedule_steps,
        )

    def to_json(self) -> str:
        """Writes it as one JSON object in ASCII, with the names of the attributes."""
        return json.dumps(asdict(self))
