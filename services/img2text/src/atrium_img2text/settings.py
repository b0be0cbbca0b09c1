"""Settings of words from pictures: ``ATRIUM_IMG2TEXT_*`` with ``ATRIUM_*`` behind it."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from atrium_common.images import ImageLimits
from atrium_common.settings import ServiceSettings
from atrium_img2text.documents import DocumentLimits
from atrium_img2text.intake import IntakeLimits


class ImageUnderstandingSettings(ServiceSettings):
    """What every service has, at this service's ports, and what uploads it takes."""

    model_config = SettingsConfigDict(env_prefix="ATRIUM_IMG2TEXT_")

    port: int = Field(default=7864, ge=0, le=65535)
    """gRPC port; 0 takes a free one."""

    metrics_port: int = Field(default=8864, ge=0, le=65535)
    """HTTP port of /metrics and the probes; 0 takes a free one."""

    max_upload_bytes: int = Field(default=32 * 1024**2, ge=1)
    """Largest upload of a picture or a document."""

    max_image_pixels: int = Field(default=64_000_000, ge=1)
    """Most pixels of a picture, and of each page of a TIFF; what has more is refused before
    it is decoded."""

    max_page_pixels: int = Field(default=36_000_000, ge=1)
    """Most pixels of a drawn page of a PDF; a larger one is drawn at a lower resolution."""

    max_document_pages: int = Field(default=200, ge=1)
    """A document with more pages is refused, however few of them are asked for."""

    max_pages: int = Field(default=100, ge=1)
    """Most pages that one request may ask for; where it asks for none, 20 or this, whichever
    is less."""

    max_decoding: int = Field(default=2, ge=1)
    """Pictures and pages of TIFFs that are decoded at once, each on a core: with
    `max_image_pixels` this bounds the memory that decoding takes."""

    max_pdf_workers: int = Field(default=4, ge=1)
    """PDFs that are drawn at once, each by a process of its own; others wait in fair order."""

    pdf_memory_mib: int = Field(default=1024, ge=256)
    """Address space of a process that draws a PDF; one that asks for more is refused as
    damaged."""

    pdf_page_seconds: float = Field(default=20.0, gt=0)
    """How long opening a PDF, and drawing one of its pages, may take."""

    max_held_pixels: int = Field(default=512_000_000, ge=1)
    """Decoded pixels, 3 bytes each, that all requests together may hold while they wait and
    are looked at, those of one tenant half of them; one more picture is refused as
    overloaded."""

    upload_idle_seconds: float = Field(default=60.0, gt=0)
    """How long a caller may send nothing before the upload is complete."""

    spool_dir: Path | None = None
    """Folder for uploads, and for documents that are written; unset takes the system's."""

    def intake_limits(self) -> IntakeLimits:
        """Returns what uploads are taken."""
        return IntakeLimits(
            documents=DocumentLimits(
                images=ImageLimits(
                    max_bytes=self.max_upload_bytes, max_pixels=self.max_image_pixels
                ),
                max_document_pages=self.max_document_pages,
                max_page_pixels=self.max_page_pixels,
                page_time=timedelta(seconds=self.pdf_page_seconds),
                memory_mib=self.pdf_memory_mib,
                max_workers=self.max_pdf_workers,
                max_decoding=self.max_decoding,
            ),
            max_held_pixels=self.max_held_pixels,
            idle=timedelta(seconds=self.upload_idle_seconds),
            directory=self.spool_dir,
        )
