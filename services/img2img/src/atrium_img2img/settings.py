"""Settings of pictures from pictures: ``ATRIUM_IMG2IMG_*`` with ``ATRIUM_*`` behind it."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from atrium_diffusion.settings import PictureSettings


class ImageEditSettings(PictureSettings):
    """What every picture service has, at this service's ports, and what uploads it takes."""

    model_config = SettingsConfigDict(env_prefix="ATRIUM_IMG2IMG_")

    port: int = Field(default=7863, ge=0, le=65535)
    """gRPC port; 0 takes a free one."""

    metrics_port: int = Field(default=8863, ge=0, le=65535)
    """HTTP port of /metrics and the probes; 0 takes a free one."""

    max_image_bytes: int = Field(default=32 * 1024**2, ge=1)
    """Largest upload of a picture or a mask."""

    max_image_pixels: int = Field(default=64_000_000, ge=1)
    """Most pixels of an upload; what has more is refused before it is decoded."""

    max_decoding: int = Field(default=2, ge=1)
    """Uploads that are decoded at once, each on a core: with `max_image_pixels` this bounds
    the memory that decoding takes."""

    max_held_pixels: int = Field(default=256_000_000, ge=1)
    """Pixels, resized, that all requests together may hold while they wait and are drawn;
    one more picture is refused as overloaded."""

    upload_idle_seconds: float = Field(default=60.0, gt=0)
    """How long a caller may send nothing before the uploads are complete."""

    spool_dir: Path | None = None
    """Folder for uploads while they are received; unset takes the system's."""
