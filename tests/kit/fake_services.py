"""How each of the six services is put together over its fake engine.

`fakes.py` runs all of them in one process; the gateway's tests run those that they want.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from atrium_common.catalogue import Catalogue
from atrium_common.service import Servicer
from atrium_common.weights import WeightStore
from atrium_diffusion.domain import Pixels
from atrium_diffusion.finishing import Finisher
from atrium_diffusion.studio import Studio
from atrium_img2img.engines import open_engines as open_img2img
from atrium_img2img.servicer import ImageEditServicer
from atrium_img2img.uploads import Uploads
from atrium_img2text.engines import open_engines as open_img2text
from atrium_img2text.intake import Intake
from atrium_img2text.servicer import ImageUnderstandingServicer
from atrium_llm.engines import open_engines as open_llm
from atrium_llm.servicer import TextGenerationServicer
from atrium_stt.engines import open_engines as open_stt
from atrium_stt.servicer import TranscriptionServicer
from atrium_text2image.engines import open_engines as open_text2image
from atrium_text2image.servicer import TextToImageServicer
from atrium_tts.engines import open_engines as open_tts
from atrium_tts.servicer import SpeechServicer
from atrium_tts.speech import Speaker
from atrium_tts.voices import VoiceStore

_STORE = WeightStore(Path("unused"))


class SafetyCheck(Protocol):
    """Says which pictures are not shown."""

    async def unsafe(self, pixels: Pixels) -> bool:
        """Whether it is one."""
        ...


@dataclass(frozen=True)
class FakeService:
    """A service that is put together.

    Attributes:
        servicer: Answers its calls.
        router: Its engines.
    """

    servicer: Servicer
    router: Any


def make_service(
    name: str, catalogue: Catalogue, *, folder: Path, safety: SafetyCheck | None = None
) -> FakeService:
    """Puts a service together.

    Args:
        name: One of `SERVICES`.
        catalogue: Names its models; all of them are of the engine `fake`.
        folder: Where voices are kept.
        safety: Looks at what is drawn.
    """
    return _MAKERS[name](catalogue, folder, safety)


def _llm(catalogue: Catalogue, _: Path, __: SafetyCheck | None) -> FakeService:
    router = open_llm(catalogue.for_service("llm"), store=_STORE)
    return FakeService(TextGenerationServicer(router, catalogue), router)


def _stt(catalogue: Catalogue, _: Path, __: SafetyCheck | None) -> FakeService:
    router = open_stt(catalogue.for_service("stt"), store=_STORE)
    return FakeService(TranscriptionServicer(router, catalogue), router)


def _tts(catalogue: Catalogue, folder: Path, _: SafetyCheck | None) -> FakeService:
    router = open_tts(catalogue.for_service("tts"), store=_STORE)
    voices = VoiceStore(folder / "voices")
    servicer = SpeechServicer(router, catalogue, speaker=Speaker(router), voices=voices)
    return FakeService(servicer, router)


def _text2image(catalogue: Catalogue, _: Path, safety: SafetyCheck | None) -> FakeService:
    entries = catalogue.for_service("text2image")
    router = open_text2image(entries, store=_STORE, adapters=catalogue.adapters)
    studio = Studio(router, finisher=Finisher(safety=safety))
    return FakeService(TextToImageServicer(router, catalogue, studio=studio), router)


def _img2img(catalogue: Catalogue, _: Path, safety: SafetyCheck | None) -> FakeService:
    entries = catalogue.for_service("img2img")
    router = open_img2img(entries, store=_STORE, adapters=catalogue.adapters)
    studio = Studio(router, finisher=Finisher(safety=safety))
    servicer = ImageEditServicer(router, catalogue, studio=studio, uploads=Uploads())
    return FakeService(servicer, router)


def _img2text(catalogue: Catalogue, _: Path, __: SafetyCheck | None) -> FakeService:
    router = open_img2text(catalogue.for_service("img2text"), store=_STORE)
    return FakeService(ImageUnderstandingServicer(router, catalogue, intake=Intake()), router)


_MAKERS: Mapping[str, Callable[[Catalogue, Path, SafetyCheck | None], FakeService]] = {
    "llm": _llm,
    "stt": _stt,
    "tts": _tts,
    "text2image": _text2image,
    "img2img": _img2img,
    "img2text": _img2text,
}
SERVICES = tuple(_MAKERS)
