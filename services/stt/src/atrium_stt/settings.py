"""Settings of the transcription service: ``ATRIUM_STT_*`` with ``ATRIUM_*`` behind it."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from atrium_common.settings import ServiceSettings


class SttSettings(ServiceSettings):
    """What every service has, at this service's ports, and how much audio it takes."""

    model_config = SettingsConfigDict(env_prefix="ATRIUM_STT_")

    port: int = Field(default=7862, ge=0, le=65535)
    """gRPC port; 0 takes a free one."""

    metrics_port: int = Field(default=8862, ge=0, le=65535)
    """HTTP port of /metrics and the probes; 0 takes a free one."""

    max_audio_bytes: int = Field(default=1024**3, ge=1)
    """Largest upload."""

    max_audio_seconds: float = Field(default=4 * 3600.0, gt=0)
    """Longest audio once decoded; longer audio is refused, whatever its size."""

    max_decoding: int = Field(default=2, ge=1)
    """Uploads that are decoded at once, each on a core."""

    reserved_audio_seconds: float = Field(default=60.0, gt=0)
    """Audio that admission reserves for a direct caller before the upload tells its
    length; then the reservation grows to that."""

    max_live_sessions: int = Field(default=16, ge=1)
    """Callers who may speak at once; one more is refused as overloaded."""

    max_live_seconds: float = Field(default=4 * 3600.0, gt=0)
    """Longest live session, of audio and by the clock."""

    live_idle_seconds: float = Field(default=60.0, gt=0)
    """How long a live caller may send nothing, or leave results unread."""

    spool_dir: Path | None = None
    """Folder for uploads and decoded audio (115 MB an hour); unset takes the system's."""
