"""What an edit is asked for with, and of which kinds its uploads are."""

from dataclasses import dataclass
from enum import StrEnum

from atrium_common.images import ResizeMode
from atrium_diffusion.domain import OutputOptions, PictureJob

DEFAULT_STRENGTH = 0.6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EditOrder:
    """Everything that decides an edit, before its uploads.

    Attributes:
        job: What to draw; its sources are still missing.
        output: How pictures are encoded.
        uploads: Pictures that follow, 1 or more.
        has_mask: Whether a mask follows them.
        mask_blur: Pixels of the result by which the mask's edge is softened, 0 or more.
        resize: How uploads get the size that is denoised.
        width: Asked for, or 0.
        height: Asked for, or 0.
    """

    job: PictureJob
    output: OutputOptions
    uploads: int
    has_mask: bool
    mask_blur: int
    resize: ResizeMode
    width: int
    height: int

    @property
    def pictures(self) -> int:
        """Results of all uploads together."""
        return self.uploads * self.job.n


class UploadKind(StrEnum):
    """What an upload is; the values name its messages in refusals."""

    IMAGE = "image"
    MASK = "mask"
