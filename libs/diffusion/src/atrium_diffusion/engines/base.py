"""What every picture engine meets, so that the services need to know none."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from atrium_common.domain import ModelInfo
from atrium_common.work import Batching, Serial
from atrium_diffusion.domain import ModelLimits, PictureEvent, PictureJob, RequestPlan


class PictureEngine(Protocol):
    """Serves one or more picture models of the catalogue; plain Python for any script."""

    name: str
    """Registry name, e.g. ``"diffusers"``; it stands in every `Usage`."""

    @property
    def scheduling(self) -> Serial | Batching:
        """How many requests it takes at once; its own loop shares the device among them."""
        ...

    async def load(self) -> None:
        """Loads every model that is to be ready at start."""
        ...

    async def close(self) -> None:
        """Stops running work and frees memory. May be called twice."""
        ...

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order, with their present state."""
        ...

    async def verify(self, model: str) -> None:
        """Takes one step of a small picture, outside of any queue; raises if that fails."""
        ...

    def limits(self, model: str) -> ModelLimits:
        """Tells the sizes and steps that a model takes; known without its weights.

        Raises:
            NotFound: This engine does not serve the model.
        """
        ...

    def check_ready(self, model: str) -> None:
        """Refuses a model that can't draw now, nor be loaded for it.

        Raises:
            NotFound: This engine does not serve the model.
            Unavailable: It has failed, or the engine is closed.
        """
        ...

    def plan(self, job: PictureJob) -> RequestPlan:
        """Decides everything about a request before any work, and draws its seed.

        Raises:
            NotFound: No such model, or no such LoRA (`field` is ``"denoising.loras"``).
            InvalidArgument: The model can't do what is asked; `field` names it
                (``"width"``, ``"height"``, ``"denoising.steps"``, ``"prompt"``, ...), and
                the message gives the range.
        """
        ...

    def draw(self, plan: RequestPlan) -> AsyncIterator[PictureEvent]:
        """Draws a request, after loading its model if need be. Pictures finish in any order.

        Closing the iterator frees the request's place within one step.

        Raises:
            Unavailable: The model can't be loaded, or a provider can't be reached.
            Overloaded: Models in use take the memory, or the device has not enough even for
                this picture alone.
        """
        ...
