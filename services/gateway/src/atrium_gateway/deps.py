"""What the endpoints are given: made once by `app.py`, reached through the exchange."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from atrium_common.catalogue import Catalogue, ModelEntry, ServiceName
from atrium_common.domain import Capability
from atrium_gateway.administration.desk import Administration
from atrium_gateway.auth.authenticator import Authenticator
from atrium_gateway.idempotency.keeper import Keeper
from atrium_gateway.live import LiveSessions
from atrium_gateway.pipeline import Pipeline
from atrium_gateway.standing import Standing
from atrium_gateway.upstreams.health import ServiceWatch
from atrium_gateway.upstreams.img2img import ImageEditUpstream
from atrium_gateway.upstreams.img2text import ImageUnderstandingUpstream
from atrium_gateway.upstreams.llm import LlmUpstream
from atrium_gateway.upstreams.stt import SttUpstream
from atrium_gateway.upstreams.text2image import TextToImageUpstream
from atrium_gateway.upstreams.tts import TtsUpstream
from atrium_gateway.usage.reports import UsageReports

OFFERED = (
    Capability.CHAT,
    Capability.COMPLETION,
    Capability.EMBEDDING,
    Capability.TRANSCRIPTION,
    Capability.SPEECH,
    Capability.TEXT_TO_IMAGE,
    Capability.IMAGE_TO_IMAGE,
    Capability.IMAGE_TO_TEXT,
    Capability.OCR,
)
"""Capabilities that have an endpoint."""


class Fetcher(Protocol):
    """Fetches what a caller names by its address; made where the operator allows it."""

    async def fetch(self, url: str, *, limit: int, deadline: float) -> bytes:
        """Gives what stands at an address.

        Args:
            url: Where; ``http`` or ``https``.
            limit: Most bytes that are taken.
            deadline: When it must be there, on `time.monotonic`'s clock.

        Raises:
            AtriumError: It is not allowed, not there, too large or too slow; `field` is
                ``"image_url"``.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The parts behind the endpoints.

    Attributes:
        authenticator: Makes principals of bearer credentials.
        pipeline: Runs metered work.
        catalogue: Names the models.
        llm: The llm service.
        stt: The stt service.
        tts: The tts service.
        text2image: The text2image service.
        img2img: The img2img service.
        img2text: The img2text service.
        services: Watches of every service's health, by service name.
        reports: What was used.
        administration: Where tenants, keys and limits are changed.
        standing: What is left of the limits, and whose days are whose.
        now: The time, aware UTC.
        live: The sessions of live transcription.
        max_picture_bytes: Largest picture, mask or document.
        fetcher: Fetches pictures by their addresses; ``None`` where that is not allowed.
        idempotency: Holds answers for `Idempotency-Key`; ``None`` leaves the header unread.
    """

    authenticator: Authenticator
    pipeline: Pipeline
    catalogue: Catalogue
    llm: LlmUpstream
    stt: SttUpstream
    tts: TtsUpstream
    text2image: TextToImageUpstream
    img2img: ImageEditUpstream
    img2text: ImageUnderstandingUpstream
    services: Mapping[str, ServiceWatch]
    reports: UsageReports
    administration: Administration
    standing: Standing
    now: Callable[[], datetime]
    live: LiveSessions = field(default_factory=LiveSessions)
    max_picture_bytes: int = 32 << 20
    fetcher: Fetcher | None = None
    idempotency: Keeper | None = None
    _resolved: dict[tuple[str, Capability, ServiceName | None], ModelEntry] = field(
        default_factory=dict
    )

    def resolve(
        self, name: str, capability: Capability, *, service: ServiceName | None = None
    ) -> ModelEntry:
        """Finds the model that a request means; ``""`` takes the capability's default.

        Args:
            name: Id, alias or ``""``.
            capability: What the request asks for.
            service: Only among the models that it runs.

        Raises:
            NotFound: No such model, or it lacks the capability.
        """
        entry = self._resolved.get((name, capability, service))
        if entry is None:
            # Only names of the catalogue get in, so that the cache stays small.
            entry = self.catalogue.resolve(name, capability, service=service)
            self._resolved[name, capability, service] = entry
        return entry
