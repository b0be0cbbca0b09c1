"""Settings that every service has; each service subclasses them with its own prefix.

A variable that is not found under the service's prefix (``ATRIUM_LLM_``) is looked
up under the shared one (``ATRIUM_``), so that a machine states its credential once.
``<VARIABLE>_FILE`` names a file that holds the value instead (`variable_files.py`).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from pydantic_settings.sources.utils import parse_env_vars

from atrium_common.catalogue import Catalogue
from atrium_common.variable_files import SUFFIX, VariableFileError, read_variable

SHARED_PREFIX = "ATRIUM_"


class FileSettingsSource(EnvSettingsSource):
    """Reads ``<prefix><FIELD>`` out of the file that ``<prefix><FIELD>_FILE`` names."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        """Returns what the files hold, under the names of the variables they stand for.

        Raises:
            VariableFileError: A file can't be read, or its variable is set, too.
        """
        prefix = self.env_prefix.upper()
        names = [prefix + field.upper() for field in self.settings_cls.model_fields]
        found = {
            name: value
            for name in names
            if os.environ.get(name + SUFFIX)
            and (value := read_variable(name, os.environ)) is not None
        }
        return parse_env_vars(
            found, self.case_sensitive, self.env_ignore_empty, self.env_parse_none_str
        )


class SharedPrefixSettings(BaseSettings):
    """Reads ``<own prefix><FIELD>`` and, where that is unset, ``ATRIUM_<FIELD>``.

    Either may be ``..._FILE`` and name a file instead; a variable and its file are never
    both set.
    """

    # What is wrong is named without its value, which may be a secret.
    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    catalogue: Path = Path("models/starter.yaml")
    """Catalogue file."""

    models: Annotated[tuple[str, ...], NoDecode] = ()
    """Ids of the catalogue's models to offer, separated by commas; all if empty."""

    def open_catalogue(self) -> Catalogue:
        """Reads the catalogue, as far as `models` chooses from it.

        Raises:
            CatalogueError: The file does not hold, or has no such model.
        """
        return Catalogue.load(self.catalogue).only(self.models)

    @field_validator("models", mode="before")
    @classmethod
    def _models_are_split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Puts the shared prefix behind the service's own."""
        return (
            init_settings,
            env_settings,
            FileSettingsSource(settings_cls, env_prefix=_prefix(env_settings)),
            EnvSettingsSource(settings_cls, env_prefix=SHARED_PREFIX),
            FileSettingsSource(settings_cls, env_prefix=SHARED_PREFIX),
            dotenv_settings,
            file_secret_settings,
        )


SettingsT = TypeVar("SettingsT", bound=SharedPrefixSettings)


def read_settings(settings: type[SettingsT]) -> SettingsT:
    """Reads a program's settings, for its `main`.

    Raises:
        SystemExit: They do not hold, or a file of theirs can't be read; the message names
            each, without its value, for stderr.
    """
    try:
        return settings()
    except (ValidationError, VariableFileError, SettingsError) as err:
        program = settings.__module__.partition(".")[0]
        raise SystemExit(f"{program}: {err}") from None


def _prefix(source: PydanticBaseSettingsSource) -> str | None:
    return source.env_prefix if isinstance(source, EnvSettingsSource) else None


class ServiceSettings(SharedPrefixSettings):
    """What `serve` needs to know. Subclasses set `env_prefix`, `port`, `metrics_port`."""

    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` in a container."""

    port: int = Field(ge=0, le=65535)
    """gRPC port; 0 takes a free one."""

    metrics_port: int = Field(ge=0, le=65535)
    """HTTP port of /metrics, /health/live and /health/ready; 0 takes a free one."""

    service_credential: SecretStr | None = Field(default=None, min_length=16)
    """The suite's shared secret. Without it no caller is trusted and nothing admitted."""

    admission_target: str | None = None
    """gRPC target of the AdmissionService; without it tenants get UNAVAILABLE."""

    admission_tls_ca: Path | None = None
    """CA of the AdmissionService's certificate; unset speaks plaintext to it. The
    service shows its own `tls_certificate` there."""

    tls_certificate: Path | None = None
    """PEM chain of the server; unset serves plaintext."""

    tls_key: Path | None = None
    """PEM key of `tls_certificate`."""

    tls_client_ca: Path | None = None
    """PEM CA that clients' certificates must come from (mTLS); unset asks for none."""

    models_dir: Path = Path(".atrium/models")
    """Folder where weights are kept; may be read-only where they are there already."""

    cache_dir: Path | None = None
    """Folder of what engines make of weights, once, and keep; unset takes `models_dir`."""

    engine: str | None = None
    """Serves every model of the catalogue with this engine instead of its own."""

    load_at_start: str = "all"
    """Models to load before the service is ready: ``all``, ``default`` (the first of each
    capability), ``none``, or catalogue ids with commas between them. Others are loaded by
    their first use."""

    keep_alive_seconds: float | None = Field(default=None, ge=0)
    """Time that a model stays loaded after its last use; unset keeps it for ever. A
    catalogue entry's own comes first."""

    memory_budget_mib: int = Field(default=0, ge=0)
    """Memory that the service's loaded models may take together; the least recently used
    idle ones make room for others. 0 sets no limit."""

    max_queue: int = Field(default=64, ge=1)
    """Requests that may wait for an engine."""

    max_concurrent_rpcs: int = Field(default=512, ge=1)
    """RPCs served at once, health checks not counted; more are refused."""

    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=64 * 1024)
    """Largest gRPC message, in and out."""

    drain_seconds: float = Field(default=20.0, ge=0)
    """Time that running requests get to finish when the service stops."""

    default_deadline_seconds: float | None = Field(default=None, gt=0)
    """Deadline of a call that brings none; unset means no deadline."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe event that is logged."""

    log_format: Literal["json", "console"] = "json"
    """One JSON object per line, or lines for a person."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self
