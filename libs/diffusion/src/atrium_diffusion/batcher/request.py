"""One request and its pictures as the engine thread sees them.

`loop.py` makes them of a plan and alone changes them afterwards; only `cancelled` is set
from outside, and the mailbox belongs to the event loop.
"""

from dataclasses import dataclass, field

from atrium_diffusion.batcher.canvas import Canvas
from atrium_diffusion.batcher.mailbox import Mailbox
from atrium_diffusion.batcher.order import Contender
from atrium_diffusion.domain import PicturePlan, RequestPlan


@dataclass(slots=True, eq=False, kw_only=True)
class Picture(Contender):
    """One unfinished picture of a request.

    Attributes:
        request: Whose it is.
        plan: What was decided about it.
        canvas: What the device holds of it, once it has begun.
        seconds: Its share of the device's time that nobody was told of yet.
    """

    request: "Request"
    plan: PicturePlan
    canvas: Canvas | None = None
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Request:
    """One request.

    Attributes:
        plan: What was decided about it.
        mailbox: Where its reader finds what happened.
        pictures: Those that are not finished.
        cancelled: Set by the reader's side when it leaves.
        released: True once nothing more is sent to its mailbox.
    """

    plan: RequestPlan
    mailbox: Mailbox = field(default_factory=Mailbox)
    pictures: set[Picture] = field(default_factory=set)
    cancelled: bool = False
    released: bool = False

    def picture(self, plan: PicturePlan) -> Picture:
        """Makes one of its pictures.

        A deterministic one is a group of its own: kernels may add in another order in
        batches of another size, so that its bytes are always the same only alone.
        """
        job = self.plan.job
        pixels = plan.width * plan.height
        alone = plan if job.denoising.deterministic else None
        return Picture(
            request=self,
            plan=plan,
            tenant=job.tenant,
            weight=job.weight,
            priority=job.priority,
            group=(plan.height, plan.width, self.plan.loras, alone),
            pixels=pixels,
            load=pixels * (2 if self.plan.guidance_scale > 1 else 1),
            steps_left=plan.steps,
        )
