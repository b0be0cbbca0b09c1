"""Settings of the speech service: ``ATRIUM_TTS_*`` with ``ATRIUM_*`` behind it."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from atrium_common.settings import ServiceSettings


class TtsSettings(ServiceSettings):
    """What every service has, at this service's ports, and what texts and voices it takes."""

    model_config = SettingsConfigDict(env_prefix="ATRIUM_TTS_")

    port: int = Field(default=7861, ge=0, le=65535)
    """gRPC port; 0 takes a free one."""

    metrics_port: int = Field(default=8861, ge=0, le=65535)
    """HTTP port of /metrics and the probes; 0 takes a free one."""

    max_characters: int = Field(default=10_000, ge=1)
    """Longest plain text, in Unicode code points."""

    max_ssml_characters: int = Field(default=20_000, ge=1)
    """Longest SSML, markup included, in Unicode code points."""

    max_speeches: int = Field(default=32, ge=1)
    """Requests that an engine serves at once, sentence by sentence in turns."""

    state_dir: Path = Path(".atrium")
    """Folder of what the suite keeps."""

    voices_dir: Path | None = None
    """Folder of cloned voices; unset takes ``voices`` in `state_dir`."""

    max_voices: int = Field(default=100, ge=0)
    """Cloned voices that a tenant may keep."""

    max_reference_bytes: int = Field(default=16 * 1024**2, ge=1)
    """Largest recording to clone a voice from."""

    spool_dir: Path | None = None
    """Folder for uploads while they are received; unset takes the system's."""

    @property
    def voices_folder(self) -> Path:
        """Where cloned voices are kept."""
        return self.voices_dir or self.state_dir / "voices"
