"""What the check reads: its own variables, and of each service those that decide its share.

The names are the services' own, so that the compose file passes the same variables to both.
"""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from atrium_common.profiles import services_of
from atrium_common.settings import SharedPrefixSettings


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class PreflightSettings(SharedPrefixSettings):
    """What the check is told of the box: ``ATRIUM_PREFLIGHT_*``, ``ATRIUM_*`` behind it."""

    model_config = SettingsConfigDict(env_prefix="ATRIUM_PREFLIGHT_")

    profiles: Annotated[tuple[str, ...], NoDecode] = ("all",)
    """Compose profiles that are started, separated by commas."""

    cards_mib: Annotated[tuple[int, ...], NoDecode] = ()
    """Memory of each card in MiB, separated by commas: what is planned with where the driver
    can't be asked. Where it can, its answer counts."""

    reserve_mib: int = Field(default=500, ge=0)
    """What stays free on each card, for the driver and for fragmentation."""

    @field_validator("profiles", "cards_mib", mode="before")
    @classmethod
    def _lists_are_split(cls, value: object) -> object:
        return _split(value)

    def services(self) -> tuple[str, ...]:
        """The services that these profiles start, in a fixed order."""
        return services_of(self.profiles)


class ShareSettings(SharedPrefixSettings):
    """What a service's variables say of its share, read under the service's own prefix."""

    gpu: Annotated[tuple[str, ...], NoDecode] = ()
    """Cards of the service, by index or UUID, separated by commas; none runs it on the
    processor. The compose file hands it exactly these."""

    memory_budget_mib: int = Field(default=0, ge=0)
    """As the service's own setting: most that its models hold together; 0 for no limit."""

    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """As llm's own setting: vLLM's part of its card."""

    max_model_len: int | None = Field(default=None, ge=1)
    """As llm's own setting."""

    @field_validator("gpu", mode="before")
    @classmethod
    def _cards_are_split(cls, value: object) -> object:
        return _split(value)

    @classmethod
    def of(cls, service: str) -> "ShareSettings":
        """Reads the variables of a service."""
        return cls(_env_prefix=f"ATRIUM_{service.upper()}_")
