"""Settings that both picture services have; each subclasses them with its own prefix."""

from pydantic import Field

from atrium_common.settings import ServiceSettings
from atrium_diffusion.safety import SafetyName


class PictureSettings(ServiceSettings):
    """What every service has, and how many pictures are drawn and shown."""

    max_requests: int = Field(default=256, ge=1)
    """Requests that an engine draws at once, sharing its steps; more wait for a seat."""

    safety_check: SafetyName = "off"
    """What looks at finished pictures; a picture that it refuses is withheld."""
