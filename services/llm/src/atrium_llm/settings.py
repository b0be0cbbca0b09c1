"""Settings of the text service, read from ``ATRIUM_LLM_*`` with ``ATRIUM_*`` behind it."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from atrium_common.settings import ServiceSettings


class LlmSettings(ServiceSettings):
    """What every service has, at this service's ports."""

    model_config = SettingsConfigDict(env_prefix="ATRIUM_LLM_")

    port: int = Field(default=7865, ge=0, le=65535)
    """gRPC port; 0 takes a free one."""

    metrics_port: int = Field(default=8865, ge=0, le=65535)
    """HTTP port of /metrics and the probes; 0 takes a free one."""

    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Part of its card that each vLLM model takes, over what the catalogue says; vLLM's own
    default is 0.9 or more, which leaves nothing to the services beside it."""

    max_model_len: int | None = Field(default=None, ge=1)
    """Longest prompt and answer together of each vLLM model, in tokens, over what the
    catalogue says: a shorter one needs less memory."""
