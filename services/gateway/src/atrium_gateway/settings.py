"""Settings of the gateway, read from the environment by `__main__`, the CLI and tests.

Every field is `ATRIUM_GATEWAY_<FIELD>`; a variable that is not set there falls back to
`ATRIUM_<FIELD>`, so that what the suite shares is said once.
"""

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from atrium_common.settings import SharedPrefixSettings
from atrium_gateway.auth.issuer_rules import IssuerRules
from atrium_gateway.egress.addresses import read_network
from atrium_gateway.egress.rules import EgressRules
from atrium_gateway.egress.targets import read_host_rule
from atrium_gateway.idempotency.domain import Bounds
from atrium_gateway.passwords import with_password
from atrium_gateway.quota.limits import Window

MIN_SECRET_BYTES = 32
"""A shorter HS256 secret or pepper is refused (RFC 7518, section 3.2)."""


class GatewaySettings(SharedPrefixSettings):
    """Everything that may differ between two installations of the gateway."""

    model_config = SettingsConfigDict(
        env_prefix="ATRIUM_GATEWAY_",
        env_ignore_empty=True,
        env_parse_none_str="none",
        extra="ignore",
        frozen=True,
    )

    host: str = "127.0.0.1"
    """Address of the REST server."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port of the REST server; 0 takes a free one."""
    admission_host: str = "127.0.0.1"
    """Address of the internal AdmissionService."""
    admission_port: int = Field(default=8001, ge=0, le=65535)
    """Port of the internal AdmissionService; 0 takes a free one."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics server; never public."""
    metrics_port: int = Field(default=9000, ge=0, le=65535)
    """Port of the metrics server; 0 takes a free one."""

    llm_target: str = "127.0.0.1:7865"
    """gRPC target of the llm service."""
    stt_target: str = "127.0.0.1:7862"
    """gRPC target of the stt service."""
    tts_target: str = "127.0.0.1:7861"
    """gRPC target of the tts service."""
    text2image_target: str = "127.0.0.1:7860"
    """gRPC target of the text2image service."""
    img2img_target: str = "127.0.0.1:7863"
    """gRPC target of the img2img service."""
    img2text_target: str = "127.0.0.1:7864"
    """gRPC target of the img2text service."""
    service_credential: SecretStr | None = Field(default=None, min_length=16)
    """The suite's shared secret for calls between its own processes."""
    tls_certificate: Path | None = None
    """PEM certificate of the AdmissionService and of the gateway as a client."""
    tls_key: Path | None = None
    """PEM key that belongs to `tls_certificate`."""
    tls_client_ca: Path | None = None
    """PEM authority that the other processes' certificates must come from."""
    catalogue: Path = Path("models/starter.yaml")
    """The catalogue file; the gateway reads names, defaults, routes and prices."""

    state_dir: Path = Path(".atrium")
    """Folder of the lock, the spool, the SQLite file and generated secrets."""
    database_url: str | None = None
    """SQLAlchemy URL; default is SQLite in `state_dir`."""
    database_password: SecretStr | None = None
    """Password that belongs into `database_url`, where it is kept by itself."""
    exports_days: float = Field(default=30.0, gt=0, le=36_500)
    """Days that the export of a deleted tenant stays in `state_dir`."""

    jwt_secret: SecretStr | None = None
    """HS256 secret of tenant tokens; made and kept in `state_dir` if not given."""
    jwt_issuer: str = "atrium"
    """`iss` that a token must carry."""
    jwt_audience: str = "atrium"
    """`aud` that a token must carry."""
    oidc_issuers: tuple[IssuerRules, ...] = ()
    """OIDC issuers whose tokens are taken, as JSON: a list of what `IssuerRules` names."""
    key_pepper: SecretStr | None = None
    """Key of the HMAC over API keys; made and kept in `state_dir` if not given."""

    default_limit: int | None = Field(default=100, ge=0)
    """Requests per tenant, capability and `default_limit_window`; ``none`` for no such limit."""
    default_limit_window: Window = Window.HOUR
    """Window of `default_limit`."""
    quota_redis_url: SecretStr | None = None
    """Redis that gateway processes count limits in together, ``redis://`` or ``rediss://``; if
    not given, the one process counts in memory."""
    quota_redis_password: SecretStr | None = None
    """Password that belongs into `quota_redis_url`, where it is kept by itself."""
    quota_timeout_seconds: float = Field(default=0.05, gt=0, le=10)
    """Longest wait for an answer of that Redis; then it counts as away (docs/adr/0012)."""
    lease_seconds: float = Field(default=60.0, gt=0, le=86_400)
    """Life of a reservation that is neither renewed nor settled, and of a crashed request's
    hold on its `Idempotency-Key`."""
    idempotency_answer_bytes: int = Field(default=8 << 20, ge=0)
    """Largest answer that is kept for `Idempotency-Key`."""
    idempotency_tenant_bytes: int = Field(default=256 << 20, ge=0)
    """Most bytes of answers that are kept of a tenant."""
    idempotency_tenant_keys: int = Field(default=100_000, ge=1)
    """Most keys of a tenant within a day."""
    spool_segment_bytes: int = Field(default=4 << 20, ge=4096)
    """The spool starts a new file at this size."""
    writer_interval_seconds: float = Field(default=0.5, gt=0, le=60)
    """Longest pause between two batches from the spool into the database."""

    max_body_bytes: int = Field(default=4 << 20, ge=1024)
    """Largest JSON body."""
    max_upload_bytes: int = Field(default=200 << 20, ge=1024)
    """Largest uploaded media file."""
    max_picture_bytes: int = Field(default=32 << 20, ge=1024)
    """Largest picture, mask or document; the services have limits of their own."""
    max_picture_body_bytes: int = Field(default=16 << 20, ge=1024)
    """Largest JSON body with pictures in base64."""
    live_sessions: int = Field(default=1000, ge=1)
    """Sessions of live transcription that may be open at once."""
    live_session_seconds: float = Field(default=3600.0, gt=0, le=3600)
    """Longest session of live transcription."""
    live_idle_seconds: float = Field(default=45.0, gt=0)
    """A session of live transcription ends when its client sends nothing for so long; less
    than the stt service's own limit, whose end would be an error."""
    fetch_hosts: tuple[str, ...] = ()
    """Hosts that pictures and documents may be fetched from by URL: ``example.com``, or
    ``*.example.com`` for any name below it; either with a port. Nothing is fetched if empty."""
    fetch_private_networks: tuple[str, ...] = ()
    """Networks such as ``10.1.0.0/16`` that hosts of `fetch_hosts` may be in although they
    are not public."""
    fetch_max_bytes: int = Field(default=32 << 20, ge=1024)
    """Largest file that is fetched."""
    fetch_max_redirects: int = Field(default=3, ge=0, le=10)
    """Redirects that are followed; each is checked like the first address."""
    fetch_seconds: float = Field(default=20.0, gt=0, le=300)
    """Longest time for fetching one file, redirects included."""
    fetch_connect_seconds: float = Field(default=5.0, gt=0, le=60)
    """Longest time for one of its connections to stand."""
    fetch_concurrency: int = Field(default=8, ge=1)
    """Files that are fetched at once."""
    cors_origins: tuple[str, ...] = ()
    """Origins that browsers may call from; exact, no wildcard."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies whose ``X-Forwarded-For`` tells where a caller is; for gRPC, too."""
    drain_seconds: float = Field(default=20.0, ge=0)
    """Time that running requests get after SIGTERM."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""
    log_format: Literal["json", "console"] = "json"
    """One JSON object per line, or coloured text."""

    @field_validator("fetch_hosts")
    @classmethod
    def _hosts_are_read(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            read_host_rule(host)
        return hosts

    @field_validator("fetch_private_networks", "trusted_proxies")
    @classmethod
    def _networks_are_read(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            read_network(network)
        return networks

    @model_validator(mode="after")
    def _passwords_fit(self) -> Self:
        if self.database_password is not None and self.database_url is None:
            raise ValueError("database_password needs database_url")
        if self.quota_redis_password is not None and self.quota_redis_url is None:
            raise ValueError("quota_redis_password needs quota_redis_url")
        self.resolved_database_url()
        self.resolved_quota_redis_url()
        return self

    @model_validator(mode="after")
    def _issuers_differ(self) -> Self:
        names = [self.jwt_issuer, *(rules.issuer for rules in self.oidc_issuers)]
        if len(set(names)) < len(names):
            raise ValueError("jwt_issuer and oidc_issuers must all differ")
        return self

    def egress_rules(self) -> EgressRules | None:
        """What may be fetched by URL; ``None`` for nothing."""
        if not self.fetch_hosts:
            return None
        return EgressRules(
            hosts=[read_host_rule(host) for host in self.fetch_hosts],
            private=[read_network(network) for network in self.fetch_private_networks],
            max_bytes=self.fetch_max_bytes,
            max_redirects=self.fetch_max_redirects,
            seconds=self.fetch_seconds,
            connect_seconds=self.fetch_connect_seconds,
            concurrency=self.fetch_concurrency,
        )

    def idempotency_bounds(self) -> Bounds:
        """What is kept for `Idempotency-Key`."""
        return Bounds(
            answer_bytes=self.idempotency_answer_bytes,
            tenant_bytes=self.idempotency_tenant_bytes,
            tenant_keys=self.idempotency_tenant_keys,
            lease=timedelta(seconds=self.lease_seconds),
        )

    @property
    def spool_dir(self) -> Path:
        """Folder of the ledger's spool; further processes take ones beside it."""
        return self.state_dir / "spool"

    @property
    def exports_dir(self) -> Path:
        """Folder of what tenants were, written before they are deleted."""
        return self.state_dir / "exports"

    @property
    def lock_file(self) -> Path:
        """File that the one gateway process of an in-process quota store locks."""
        return self.state_dir / "gateway.lock"

    def resolved_database_url(self) -> str:
        """`database_url` with its password, or the SQLite file in `state_dir`."""
        if self.database_url is None:
            return f"sqlite+aiosqlite:///{self.state_dir / 'gateway.db'}"
        return with_password(self.database_url, self.database_password)

    def resolved_quota_redis_url(self) -> str | None:
        """`quota_redis_url` with its password; ``None`` for counting in memory."""
        if self.quota_redis_url is None:
            return None
        return with_password(self.quota_redis_url.get_secret_value(), self.quota_redis_password)

    def resolved_jwt_secret(self) -> bytes:
        """The HS256 secret: given, or kept in `state_dir/jwt.secret`.

        Raises:
            ValueError: It is shorter than 32 bytes.
        """
        return _secret(self.jwt_secret, self.state_dir / "jwt.secret")

    def resolved_key_pepper(self) -> bytes:
        """The key of API key digests: given, or kept in `state_dir/key.pepper`.

        Raises:
            ValueError: It is shorter than 32 bytes.
        """
        return _secret(self.key_pepper, self.state_dir / "key.pepper")


def _secret(given: SecretStr | None, file: Path) -> bytes:
    value = given.get_secret_value().encode() if given else _kept_secret(file)
    if len(value) < MIN_SECRET_BYTES:
        raise ValueError(f"the secret {file.name} has fewer than {MIN_SECRET_BYTES} bytes")
    return value


def _kept_secret(file: Path) -> bytes:
    """Reads the secret in `file`; the first caller makes it, readable by its owner alone."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(secrets.token_hex(MIN_SECRET_BYTES).encode())
        try:
            os.link(draft, file)  # unlike rename, keeps the secret of a process that was faster
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_bytes().strip()
