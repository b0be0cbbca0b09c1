"""SDXL by diffusers' components, shared step by step; the registry loads this lazily.

Each set of weights is loaded once, with a `StepBatcher` on a thread of its own, however
many entries of the catalogue use it: so drawing and editing share batches.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import diffusers

from atrium_common.catalogue import AdapterEntry, ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine_models import find_model, load_each, model_info
from atrium_common.errors import AtriumError, Conflict, Unavailable
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
from atrium_diffusion.engines.diffusers_weights import LoadedWeights, SharedWeights
from atrium_diffusion.planning import Planner
from atrium_diffusion.sdxl.lora_files import LoraFiles
from atrium_diffusion.sdxl.schedulers import most_steps

_REQUESTS = 256
"""Requests that are held at once: their pictures take turns by steps."""
_DRAWN_SEEDS = 2**32
"""Drawn seeds are below, so that they survive a client that reads numbers as doubles."""


def _draw_seed() -> int:
    return secrets.randbelow(_DRAWN_SEEDS)


@dataclass(slots=True)
class _Model:
    """A model of the catalogue and where it stands."""

    entry: ModelEntry
    options: DiffusersOptions
    loras: LoraFiles
    planner: Planner
    state: ModelState = ModelState.UNLOADED
    loaded: LoadedWeights | None = None
    verified_at: datetime | None = None
    detail: str = ""
    users: int = 0


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
        draw_seed: Callable[[], int] = _draw_seed,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            adapters: LoRAs of the catalogue; each model takes those that name it.
            draw_seed: Draws the seed of a request that names none, 0 to 2^63 - 17.
            now: Aware UTC, for `ModelInfo.verified_at`.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._thread = DeviceThread("diffusers-loading")
        self._weights = SharedWeights(store, self._thread)
        self._now = now
        self._moving = asyncio.Lock()
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
            self._models[entry.id] = _Model(entry, options, loras, planner)

    @property
    def batches(self) -> Mapping[str, Tally]:
        """Pictures that shared each tick; entries that share weights count as the first."""
        return self._weights.batches

    async def load(self) -> None:
        """Loads every model.

        A model that fails stands as FAILED while others serve.

        Raises:
            AtriumError: No model could be loaded; the first one's error.
        """
        await load_each(self._models, self.load_model)

    async def load_model(self, model: str) -> None:
        """Loads and verifies one model; does nothing if it is ready.

        Raises:
            NotFound: The model is not of this engine.
            WeightsError: Its files can't be had, or its licence was not accepted.
            Unavailable: It can't be loaded; the reason stands in `ModelInfo.detail`.
        """
        known = self._find(model)
        async with self._moving:
            if _state(known) is ModelState.READY:
                return
            await self._drop(known)  # what a lost device left
            known.state, known.detail = ModelState.LOADING, ""
            try:
                known.loaded = await self._weights.take(known.entry, known.options, known.loras)
                await self._verify(known)
            except Exception as error:  # diffusers and torch raise whatever fits them
                await self._drop(known)
                known.state, known.detail = ModelState.FAILED, f"{type(error).__name__}: {error}"
                if isinstance(error, AtriumError):  # says already what to do
                    raise
                raise Unavailable(
                    f"The model {model} could not be loaded.", reason="MODEL_FAILED"
                ) from error
            known.state = ModelState.READY

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory, unless another model uses the same weights.

        Raises:
            Conflict: Requests run on it.
        """
        known = self._find(model)
        async with self._moving:
            if known.users:
                raise Conflict(
                    f"{known.users} requests are running on {model}.", reason="MODEL_BUSY"
                )
            await self._drop(known)
            known.state = ModelState.UNLOADED

    async def close(self) -> None:
        """Stops running work at its next step and frees memory."""
        async with self._moving:
            for known in self._models.values():
                await self._drop(known)
                known.state = ModelState.UNLOADED
            self._thread.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return [
            model_info(
                known.entry,
                engine=self.name,
                state=_state(known),
                verified_at=known.verified_at,
                detail=known.loaded.failure if known.loaded else known.detail,
            )
            for known in self._models.values()
        ]

    async def verify(self, model: str) -> None:
        """Draws a small picture in one step, among what runs now.

        Raises:
            Unavailable: The model is not loaded.
            AtriumError: What the step raises.
        """
        await self._verify(self._find(model))

    def limits(self, model: str) -> ModelLimits:
        """Tells the sizes and steps that the model takes."""
        return self._find(model).planner.limits

    def plan(self, job: PictureJob) -> RequestPlan:
        """Decides everything about a request; see `PictureEngine.plan`.

        How long a prompt may be is known only once the model is loaded.
        """
        known = self._find(job.model)
        plan = replace(known.planner.plan(job), loras=known.loras.applied(job.denoising.loras))
        if known.loaded is not None and not job.truncate_prompt:
            known.loaded.model.check_prompt(job.prompt, field="prompt")
            known.loaded.model.check_prompt(job.negative_prompt, field="negative_prompt")
        return plan

    async def draw(self, plan: RequestPlan) -> AsyncGenerator[PictureEvent, None]:
        """Draws a request; see `PictureEngine.draw`."""
        known = self._find(plan.job.model)
        known.users += 1
        try:
            async with aclosing(_loaded(known).batcher.draw(plan)) as events:
                async for event in events:
                    yield event
        finally:
            known.users -= 1

    async def _verify(self, known: _Model) -> None:
        side = known.options.min_side
        job = PictureJob(
            model=known.entry.id,
            prompt="a",
            width=side,
            height=side,
            denoising=Denoising(steps=1, seed=0),
        )
        async with aclosing(_loaded(known).batcher.draw(known.planner.plan(job))) as events:
            made = [event async for event in events if isinstance(event, PictureMade)]
        if len(made) != 1:
            raise Unavailable(f"{known.entry.id} draws nothing.", reason="MODEL_FAILED")
        known.verified_at = self._now()

    async def _drop(self, known: _Model) -> None:
        loaded, known.loaded, known.verified_at = known.loaded, None, None
        if loaded is not None:
            await self._weights.give_back(loaded)
            del loaded  # the last reference, if nobody else uses it
            await self._weights.release_memory()

    def _find(self, model: str) -> _Model:
        return find_model(self._models, model)


def _state(known: _Model) -> ModelState:
    """Tells where a model stands; a lost device takes it down at any time."""
    return ModelState.FAILED if known.loaded and known.loaded.failure else known.state


def _loaded(known: _Model) -> LoadedWeights:
    if known.loaded is None:
        raise Unavailable(f"The model {known.entry.id} is not loaded.", reason="MODEL_NOT_LOADED")
    return known.loaded
