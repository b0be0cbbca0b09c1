"""Denoises pictures together: gather, one UNet call, scatter. `ticker.py` calls it.

Noise is drawn from a picture's own generator in exactly the order in which diffusers'
StableDiffusionXL pipelines (text to image, image to image, inpaint with 4 channels) draw
it, and everything else is computed as they do, so that a picture is theirs whatever was
in the batch with it.
"""

import inspect
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from atrium_diffusion.batcher.canvas import Canvas, Kept
from atrium_diffusion.domain import Mask, PicturePlan, Pixels, RequestPlan
from atrium_diffusion.model import DiffusionModel, Scheduler


class Denoiser:
    """The steps of denoising, for any `DiffusionModel`. Holds no state of its own."""

    def __init__(self, model: DiffusionModel) -> None:
        """Takes the model."""
        self._model = model

    def begin(self, request: RequestPlan, plan: PicturePlan) -> Canvas:
        """Encodes what a picture is made from and draws its first noise.

        Args:
            request: The request.
            plan: One of its pictures, with at least one step.

        Raises:
            InvalidArgument: A prompt is longer than the model reads.
        """
        if request.scheduler is None:
            raise ValueError("the plan names no scheduler")
        model, job, loras = self._model, request.job, request.loras
        model.adapt(loras)
        prompts = [job.prompt]
        if request.guidance_scale > 1:
            prompts.append(job.negative_prompt)
        encoded = [
            model.encode_prompt(prompt, loras=loras, truncate=job.truncate_prompt)
            for prompt in prompts
        ]
        scheduler = model.new_scheduler(request.scheduler, request.schedule_steps)
        start = request.schedule_steps - plan.steps
        if hasattr(scheduler, "set_begin_index"):  # those that count their own steps
            scheduler.set_begin_index(start)
        timesteps = scheduler.timesteps.cpu()[start:]
        generator = torch.Generator("cpu").manual_seed(plan.seed)
        latents, kept = self._first_latents(
            plan, scheduler, timesteps[:1], generator, pure_noise=job.strength == 1.0
        )
        return Canvas(
            plan=plan,
            loras=loras,
            latents=latents,
            scheduler=scheduler,
            timesteps=timesteps,
            levels=timesteps.tolist(),
            conditioning=encoded[0],
            negative=encoded[1] if len(encoded) > 1 else None,
            guidance_scale=request.guidance_scale,
            generator=generator,
            step_options=_step_options(scheduler, generator),
            kept=kept,
        )

    def predict(self, canvases: Sequence[Canvas]) -> list[Tensor]:
        """Runs the UNet once for all and applies each one's guidance; changes nothing.

        Args:
            canvases: Of one size and with the same adapters.

        Returns:
            What each one's scheduler steps with, shape (1, c, h, w).
        """
        plan = canvases[0].plan
        self._model.adapt(canvases[0].loras)
        inputs = [c.scheduler.scale_model_input(c.latents, c.timestep) for c in canvases]
        guided = [i for i, canvas in enumerate(canvases) if canvas.negative is not None]
        rows = [*guided, *range(len(canvases))]
        levels = torch.tensor([canvases[i].levels[canvases[i].position] for i in rows])
        negatives = [c.negative for c in canvases if c.negative is not None]
        output = self._model.predict(
            torch.cat([inputs[i] for i in rows]),
            levels.to(self._model.device, non_blocking=True),
            [*negatives, *(c.conditioning for c in canvases)],
            height=plan.height,
            width=plan.width,
        )
        parts = torch.split(output, 1)
        predictions = list(parts[len(guided) :])
        for without, i in zip(parts, guided, strict=False):
            scale = canvases[i].guidance_scale
            predictions[i] = without + scale * (predictions[i] - without)
        return predictions

    def advance(self, canvas: Canvas, prediction: Tensor) -> None:
        """Takes a picture's step with its own scheduler, and holds what its mask keeps."""
        latents: Tensor = canvas.scheduler.step(
            prediction,
            canvas.timestep,
            canvas.latents,
            return_dict=False,
            **canvas.step_options,
        )[0]
        canvas.position += 1
        kept = canvas.kept
        if kept is not None:
            source = kept.latents
            if not canvas.finished:
                source = canvas.scheduler.add_noise(
                    source, kept.noise, canvas.timesteps[canvas.position :][:1]
                )
            latents = (1 - kept.mask) * source + kept.mask * latents
        canvas.latents = latents.to(self._model.dtype)

    def finite(self, canvases: Sequence[Canvas]) -> list[bool]:
        """Tells whose latents are numbers. Waits for the device, the only wait of a step."""
        together = torch.cat([canvas.latents for canvas in canvases])
        flags: list[bool] = together.isfinite().flatten(1).all(1).tolist()
        return flags

    def decode(self, canvases: Sequence[Canvas]) -> list[Pixels]:
        """Decodes finished pictures of one size; where a mask is 0 stands the source."""
        decoded = self._model.decode(torch.cat([canvas.latents for canvas in canvases]))
        return [
            _composited(pixels, canvas.plan)
            for pixels, canvas in zip(decoded, canvases, strict=True)
        ]

    def preview(self, canvas: Canvas, max_side: int) -> Pixels:
        """Projects a picture's latents to a small early view."""
        return self._model.preview(canvas.latents, max_side)

    def free_memory(self) -> None:
        """Gives back what the allocator holds in reserve, after memory ran out."""
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _first_latents(
        self,
        plan: PicturePlan,
        scheduler: Scheduler,
        timestep: Tensor,
        generator: torch.Generator,
        *,
        pure_noise: bool,
    ) -> tuple[Tensor, Kept | None]:
        source = plan.source
        if source is None:
            return self._noise(plan, generator) * scheduler.init_noise_sigma, None
        clean = self._model.encode_image(source.pixels, generator)
        noise = self._noise(plan, generator)
        if source.mask is None:
            return scheduler.add_noise(clean, noise, timestep), None
        # The inpaint pipeline also encodes the picture without its masked part, which only
        # UNets with 9 channels look at; drawing as much keeps later noise the same.
        torch.randn(clean.shape, generator=generator)
        kept = Kept(mask=self._latent_mask(source.mask), latents=clean, noise=noise)
        if pure_noise:
            return noise * scheduler.init_noise_sigma, kept
        return scheduler.add_noise(clean, noise, timestep), kept

    def _noise(self, plan: PicturePlan, generator: torch.Generator) -> Tensor:
        model = self._model
        shape = (1, model.latent_channels, plan.height // model.scale, plan.width // model.scale)
        return torch.randn(shape, generator=generator, dtype=model.dtype).to(model.device)

    def _latent_mask(self, mask: Mask) -> Tensor:
        """Takes a mask to latents as the pipeline does: 0 or 1, the nearest pixel's."""
        scale = self._model.scale
        free = torch.from_numpy(mask[::scale, ::scale] >= 0.5)
        return free[None, None].to(self._model.device, self._model.dtype)


def _step_options(scheduler: Scheduler, generator: torch.Generator) -> dict[str, object]:
    """What `step` takes beside the usual: where it draws noise, it draws ours."""
    takes_it = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": generator} if takes_it else {}


def _composited(pixels: Pixels, plan: PicturePlan) -> Pixels:
    """Puts the source's own pixels back by the mask; exact where it is 0 or 1."""
    source = plan.source
    if source is None or source.mask is None:
        return pixels
    kept = source.pixels.astype(np.float32)
    mixed = kept + source.mask[:, :, None] * (pixels - kept)
    return np.rint(mixed).astype(np.uint8)
