"""The three lists of every endpoint's parameters: honoured, without effect, refused.

`docs/api.md` shows them and a test holds the two together. A parameter in none of the
lists is refused as well; the third names those that OpenAI's clients know.
"""

from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import fields

from atrium_gateway.api.audio_schema import (
    SpeechJson,
    TranscriptionForm,
    TranslationForm,
)
from atrium_gateway.api.chat_schema import ChatRequest
from atrium_gateway.api.completions_schema import CompletionRequest
from atrium_gateway.api.embeddings import EmbeddingRequest
from atrium_gateway.api.images_schema import ImageEditJson, ImageRequest
from atrium_gateway.api.keys_schema import KeyRequest
from atrium_gateway.api.picture_schema import ImageToImageJson, TextToImageRequest
from atrium_gateway.api.prices import PriceRequest
from atrium_gateway.api.seeing_schema import ImageToTextJson, OcrJson
from atrium_gateway.api.speech_schema import SpeechRequest, TextToSpeechRequest, VoiceJson
from atrium_gateway.api.tenants_schema import TenantRequest

HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "modalities",
        "chunking_strategy",
        "background",
        "moderation",
        "input_fidelity",
    }
)
"""Accepted without effect, where an endpoint takes them: they ask for nothing, and a
value that would ask for something (`store: true`) is refused."""

_NO_PICTURES = {"complexity", "frame_count", "frame_duration_ms", "style", "svg"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """The lists of one endpoint."""

    honoured: frozenset[str]
    without_effect: frozenset[str]
    refused: frozenset[str]


def _lists(schema: type[Struct], refused: set[str], *, extra: set[str] | None = None) -> Parameters:
    known = {field.encode_name for field in fields(schema)} | (extra or set())
    return Parameters(frozenset(known - HARMLESS), frozenset(known & HARMLESS), frozenset(refused))


PARAMETERS = {
    "/v1/chat/completions": _lists(
        ChatRequest,
        {
            "audio",
            "function_call",
            "functions",
            "moderation",
            "prediction",
            "prompt_cache_options",
            "prompt_cache_retention",
            "reasoning_effort",
            "verbosity",
            "web_search_options",
        },
    ),
    "/v1/completions": _lists(CompletionRequest, {"best_of", "suffix"}),
    "/v1/embeddings": _lists(EmbeddingRequest, set()),
    "/v1/audio/transcriptions": _lists(
        TranscriptionForm,
        {"include", "known_speaker_names", "known_speaker_references", "languages"},
        extra={"file"},
    ),
    "/v1/audio/translations": _lists(TranslationForm, set(), extra={"file"}),
    "/v1/audio/speech": _lists(SpeechRequest, set()),
    "/v1/images/generations": _lists(ImageRequest, _NO_PICTURES),
    "/v1/images/edits": _lists(ImageEditJson, {*_NO_PICTURES, "markup"}, extra={"image"}),
    "/api/text-to-image": _lists(TextToImageRequest, set()),
    "/api/image-to-image": _lists(ImageToImageJson, set()),
    "/api/image-to-text": _lists(ImageToTextJson, set(), extra={"file"}),
    "/api/ocr": _lists(OcrJson, set(), extra={"file"}),
    "/api/speech-to-text": _lists(SpeechJson, set(), extra={"file"}),
    "/api/text-to-speech": _lists(TextToSpeechRequest, set()),
    "/api/voices": _lists(VoiceJson, set(), extra={"file"}),
    "/api/keys": _lists(KeyRequest, set()),
    "/api/tenants": _lists(TenantRequest, set()),
    "/api/prices": _lists(PriceRequest, set()),
}
"""The lists by path."""
