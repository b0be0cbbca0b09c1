"""How many pictures fit into one UNet call. The loop asks while it fills a batch."""

import math
from dataclasses import dataclass

REGROW_TICKS = 64
"""Good ticks after which a bound that was halved is doubled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What one model's batcher may use.

    Attributes:
        max_batch: Pictures in one UNet call, at least 1.
        memory_bytes: Memory for one UNet call beside the weights; ``None`` leaves it to
            the device to say when there is none left.
        bytes_per_pixel: Estimate of what a call takes for each pixel of the picture and
            row (a picture with guidance has two rows); attention that is computed in
            blocks makes it linear in pixels.
        begins: New pictures per tick while others run: their text is encoded, and their
            source, while the others wait.
    """

    max_batch: int = 8
    memory_bytes: int | None = None
    bytes_per_pixel: float = 0.0
    begins: int = 2

    @property
    def load(self) -> float:
        """Pixels times rows that memory is thought to hold."""
        if self.memory_bytes is None or not self.bytes_per_pixel:
            return math.inf
        return self.memory_bytes / self.bytes_per_pixel


class Budget:
    """Bounds a batch by number and by load (pixels times rows); learns from the device.

    An estimate is often wrong and other processes use the device as well, so the bound
    is halved where memory ran out and grows back while all goes well.
    """

    def __init__(self, limits: BatchLimits) -> None:
        """Starts with the estimate."""
        self._limits = limits
        self._bound = limits.load
        self._good_ticks = 0

    def fits(self, pictures: int, load: int) -> bool:
        """Tells if so many pictures with so much load together are allowed."""
        return pictures <= self._limits.max_batch and load <= self._bound

    def shrink(self, load: int) -> None:
        """Memory ran out with this load: allows half of it for a while."""
        self._bound = load / 2
        self._good_ticks = 0

    def succeeded(self) -> None:
        """A tick went well; after enough of them the bound is doubled, up to the estimate."""
        if self._bound >= self._limits.load:
            return
        self._good_ticks += 1
        if self._good_ticks >= REGROW_TICKS:
            self._good_ticks = 0
            self._bound = min(self._bound * 2, self._limits.load)
