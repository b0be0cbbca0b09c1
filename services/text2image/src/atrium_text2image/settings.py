"""Settings of pictures from text: ``ATRIUM_TEXT2IMAGE_*`` with ``ATRIUM_*`` behind it."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from atrium_diffusion.settings import PictureSettings


class TextToImageSettings(PictureSettings):
    """What every picture service has, at this service's ports."""

    model_config = SettingsConfigDict(env_prefix="ATRIUM_TEXT2IMAGE_")

    port: int = Field(default=7860, ge=0, le=65535)
    """gRPC port; 0 takes a free one."""

    metrics_port: int = Field(default=8860, ge=0, le=65535)
    """HTTP port of /metrics and the probes; 0 takes a free one."""
