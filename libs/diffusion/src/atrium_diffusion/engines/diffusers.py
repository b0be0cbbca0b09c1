"""SDXL by diffusers' components, shared step by step; the registry loads this lazily.

Each set of weights is loaded once, with a `StepBatcher` on a thread of its own, however
many entries of the catalogue use it: so drawing and editing share batches.
"""

import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import diffusers

from atrium_common.catalogue import AdapterEntry, ModelEntry
from atrium_common.domain import ModelInfo
from atrium_common.engine_models import find_model
from atrium_common.errors import Unavailable
from atrium_common.lifecycle import Lifecycle, ModelHandling, ModelHost, device_bytes
from atrium_common.telemetry.tally import Tally
from atrium_common.weights import WeightStore
from atrium_common.work import Batching, DeviceThread
from atrium_diffusion.domain import (
    Denoising,
    ModelLimits,
    PictureEvent,
    PictureJob,
    PictureMade,
    RequestPlan,
)
from atrium_diffusion.engines.diffusers_options import DiffusersOptions
from atrium_diffusion.engines.diffusers_weights import SharedWeights, WeightsShare, device_of
from atrium_diffusion.planning import Planner
from atrium_diffusion.sdxl.lora_files import LoraFiles
from atrium_diffusion.sdxl.schedulers import most_steps

_REQUESTS = 256
"""Requests that are held at once: their pictures take turns by steps."""
_DRAWN_SEEDS = 2**32
"""Drawn seeds are below, so that they survive a client that reads numbers as doubles."""


def _draw_seed() -> int:
    return secrets.randbelow(_DRAWN_SEEDS)


@dataclass(frozen=True, slots=True)
class _Model:
    """What is known of a model without its weights."""

    options: DiffusersOptions
    loras: LoraFiles
    planner: Planner


class DiffusersEngine:
    """Serves SDXL models; meets `PictureEngine`."""

    name = "diffusers"
    scheduling = Batching(slots=_REQUESTS)

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        adapters: Sequence[AdapterEntry] = (),
        lifecycle: Lifecycle | None = None,
        draw_seed: Callable[[], int] = _draw_seed,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            adapters: LoRAs of the catalogue; each model takes those that name it.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            draw_seed: Draws the seed of a request that names none, 0 to 2^63 - 17.
            now: Aware UTC, for what `models` reports.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._thread = DeviceThread("diffusers-loading")
        self._weights = SharedWeights(store, self._thread)
        self._models: dict[str, _Model] = {}
        for entry in entries:
            options = DiffusersOptions.of(entry)
            usable = [adapter for adapter in adapters if entry.id in adapter.models]
            loras = LoraFiles(usable, store=store)
            planner = Planner(
                limits=options.limits(entry.id, loras=loras.ids),
                adapters={adapter.id: adapter for adapter in usable},
                digest=entry.digest,
                engine=f"{self.name} {diffusers.__version__}",
                draw_seed=draw_seed,
                most_steps=most_steps,
            )
            self._models[entry.id] = _Model(options, loras, planner)
        handling = ModelHandling(
            open_model=self._open,
            warm_up=self._draw_one,
            close_model=lambda _, share: self._weights.give_back(share),
            failure=lambda share: share.weights.failure,
            measure=self._measure,
        )
        self._host: ModelHost[WeightsShare] = ModelHost(
            self.name, entries, handling, lifecycle=lifecycle, now=now
        )

    @property
    def batches(self) -> Mapping[str, Tally]:
        """Pictures that shared each tick; entries that share weights count as the first."""
        return self._weights.batches

    async def load(self) -> None:
        """Loads the models that are to be ready at start; see `ModelHost.load`."""
        await self._host.load()

    async def load_model(self, model: str) -> None:
        """Loads and verifies one model; see `ModelHost.load_model`."""
        await self._host.load_model(model)

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory; see `ModelHost.unload_model`."""
        await self._host.unload_model(model)

    async def close(self) -> None:
        """Stops running work at its next step and frees memory."""
        await self._host.close()
        self._thread.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return self._host.models()

    async def verify(self, model: str) -> None:
        """Draws a small picture in one step, among what runs now."""
        await self._host.verify(model)

    def limits(self, model: str) -> ModelLimits:
        """Tells the sizes and steps that the model takes."""
        return self._find(model).planner.limits

    def check_ready(self, model: str) -> None:
        """Refuses a model that has failed; see `ModelHost.check`."""
        self._host.check(model)

    def plan(self, job: PictureJob) -> RequestPlan:
        """Decides everything about a request; see `PictureEngine.plan`.

        How long a prompt may be is known only while the model is loaded; `draw` looks again.
        """
        known = self._find(job.model)
        plan = replace(known.planner.plan(job), loras=known.loras.applied(job.denoising.loras))
        if (share := self._host.peek(job.model)) is not None:
            _check_prompts(share, job)
        return plan

    async def draw(self, plan: RequestPlan) -> AsyncGenerator[PictureEvent, None]:
        """Draws a request; see `PictureEngine.draw`."""
        async with self._host.use(plan.job.model) as share:
            _check_prompts(share, plan.job)
            async with (
                self._weights.holding(share, plan.loras),
                aclosing(share.weights.batcher.draw(plan)) as events,
            ):
                async for event in events:
                    yield event

    async def _open(self, entry: ModelEntry) -> WeightsShare:
        known = self._models[entry.id]
        return await self._weights.take(entry, known.options, known.loras)

    async def _draw_one(self, entry: ModelEntry, share: WeightsShare) -> None:
        known = self._models[entry.id]
        side = known.options.min_side
        job = PictureJob(
            model=entry.id,
            prompt="a",
            width=side,
            height=side,
            denoising=Denoising(steps=1, seed=0),
        )
        async with aclosing(share.weights.batcher.draw(known.planner.plan(job))) as events:
            made = [event async for event in events if isinstance(event, PictureMade)]
        if len(made) != 1:
            raise Unavailable(f"{entry.id} draws nothing.", reason="MODEL_FAILED")

    def _measure(self, entry: ModelEntry) -> int | None:
        """As `ModelHandling.measure`; what shared weights take is not one entry's alone."""
        known = self._models[entry.id]
        if self._weights.used_by_others(entry, known.options, known.loras):
            return None
        return device_bytes(str(device_of(known.options)))

    def _find(self, model: str) -> _Model:
        return find_model(self._models, model)


def _check_prompts(share: WeightsShare, job: PictureJob) -> None:
    if not job.truncate_prompt:
        share.weights.model.check_prompt(job.prompt, field="prompt")
        share.weights.model.check_prompt(job.negative_prompt, field="negative_prompt")
