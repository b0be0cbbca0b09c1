"""Every path of the REST server, in one table; `app.py` installs it."""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from starlette.types import ASGIApp

from atrium_gateway.api.admin_routes import ADMIN_PATHS
from atrium_gateway.api.audio import create_transcription, create_translation
from atrium_gateway.api.audio_schema import (
    JsonAnswer,
    SpeechAnswer,
    SpeechForm,
    SpeechJson,
    TranscriptionForm,
    TranslationForm,
)
from atrium_gateway.api.chat import create_chat_completion
from atrium_gateway.api.chat_answer import ChatCompletion
from atrium_gateway.api.chat_schema import ChatRequest
from atrium_gateway.api.completions import create_completion
from atrium_gateway.api.completions_schema import Completion, CompletionRequest
from atrium_gateway.api.embeddings import EmbeddingAnswer, EmbeddingRequest, create_embedding
from atrium_gateway.api.health import (
    HealthAnswer,
    StatusAnswer,
    show_health,
    show_liveness,
    show_readiness,
)
from atrium_gateway.api.image_to_image import create_image_to_image
from atrium_gateway.api.image_to_text import create_image_to_text
from atrium_gateway.api.images import create_image, edit_image
from atrium_gateway.api.images_schema import (
    ImageEditForm,
    ImageEditJson,
    ImageRequest,
    ImagesAnswer,
)
from atrium_gateway.api.models import (
    ModelDetails,
    ModelList,
    ModelObject,
    list_model_details,
    list_models,
    retrieve_model,
)
from atrium_gateway.api.ocr import create_ocr
from atrium_gateway.api.openapi import PICTURE_FILES, READ_FILE, Operation, operation
from atrium_gateway.api.path import Path
from atrium_gateway.api.picture_schema import (
    ImageToImageForm,
    ImageToImageJson,
    PicturesAnswer,
    TextToImageRequest,
)
from atrium_gateway.api.realtime import ONLY_A_SOCKET, serve_realtime, show_realtime
from atrium_gateway.api.seeing_schema import (
    DOCUMENT_TYPES,
    ImageToTextForm,
    ImageToTextJson,
    OcrForm,
    OcrJson,
    SeeingAnswer,
)
from atrium_gateway.api.speech import create_speech
from atrium_gateway.api.speech_schema import (
    SpeechRequest,
    TextToSpeechAnswer,
    TextToSpeechRequest,
    VoiceDeleted,
    VoiceForm,
    VoiceJson,
    VoiceList,
    VoiceObject,
    VoicesQuery,
)
from atrium_gateway.api.speech_to_text import create_speech_to_text
from atrium_gateway.api.text_to_image import create_text_to_image
from atrium_gateway.api.text_to_speech import create_text_to_speech
from atrium_gateway.api.usage_routes import USAGE_PATHS
from atrium_gateway.api.voices import create_voice, delete_voice, list_voices

# The busiest first: the router tries them in this order.
PATHS = (
    Path(
        "POST",
        "/v1/chat/completions",
        create_chat_completion,
        "openai",
        operation(body=ChatRequest, answer=ChatCompletion, streams=True),
    ),
    Path(
        "POST",
        "/v1/embeddings",
        create_embedding,
        "openai",
        operation(body=EmbeddingRequest, answer=EmbeddingAnswer),
    ),
    Path(
        "POST",
        "/v1/completions",
        create_completion,
        "openai",
        operation(body=CompletionRequest, answer=Completion, streams=True),
    ),
    Path(
        "POST",
        "/v1/audio/speech",
        create_speech,
        "openai",
        operation(body=SpeechRequest, media=("audio/*",), streams=True),
    ),
    Path(
        "POST",
        "/v1/audio/transcriptions",
        create_transcription,
        "openai",
        operation(form=TranscriptionForm, answer=JsonAnswer, streams=True),
    ),
    Path(
        "POST",
        "/v1/audio/translations",
        create_translation,
        "openai",
        operation(form=TranslationForm, answer=JsonAnswer),
    ),
    Path(
        "POST",
        "/v1/images/generations",
        create_image,
        "openai",
        operation(body=ImageRequest, answer=ImagesAnswer, streams=True),
    ),
    Path(
        "POST",
        "/v1/images/edits",
        edit_image,
        "openai",
        operation(
            body=ImageEditJson,
            form=ImageEditForm,
            files=PICTURE_FILES,
            answer=ImagesAnswer,
            streams=True,
        ),
    ),
    Path("GET", "/v1/realtime", show_realtime, "openai", Operation(ONLY_A_SOCKET)),
    Path("GET", "/v1/models", list_models, "openai", operation(answer=ModelList)),
    Path(
        "GET",
        "/v1/models/{model:path}",
        retrieve_model,
        "openai",
        operation(path="model", answer=ModelObject),
    ),
    Path(
        "POST",
        "/api/speech-to-text",
        create_speech_to_text,
        "suite",
        operation(body=SpeechJson, form=SpeechForm, answer=SpeechAnswer, streams=True),
    ),
    Path(
        "POST",
        "/api/text-to-speech",
        create_text_to_speech,
        "suite",
        operation(
            body=TextToSpeechRequest, answer=TextToSpeechAnswer, media=("audio/*",), streams=True
        ),
    ),
    Path(
        "POST",
        "/api/text-to-image",
        create_text_to_image,
        "suite",
        operation(body=TextToImageRequest, answer=PicturesAnswer, media=("image/*",), streams=True),
    ),
    Path(
        "POST",
        "/api/image-to-image",
        create_image_to_image,
        "suite",
        operation(
            body=ImageToImageJson,
            form=ImageToImageForm,
            files=PICTURE_FILES,
            answer=PicturesAnswer,
            media=("image/*",),
            streams=True,
        ),
    ),
    Path(
        "POST",
        "/api/image-to-text",
        create_image_to_text,
        "suite",
        operation(
            body=ImageToTextJson,
            form=ImageToTextForm,
            files=READ_FILE,
            raw=True,
            answer=SeeingAnswer,
            streams=True,
        ),
    ),
    Path(
        "POST",
        "/api/ocr",
        create_ocr,
        "suite",
        operation(
            body=OcrJson,
            form=OcrForm,
            files=READ_FILE,
            raw=True,
            answer=SeeingAnswer,
            media=tuple(DOCUMENT_TYPES.values()),
            streams=True,
        ),
    ),
    Path(
        "GET", "/api/voices", list_voices, "suite", operation(query=VoicesQuery, answer=VoiceList)
    ),
    Path(
        "POST",
        "/api/voices",
        create_voice,
        "suite",
        operation(body=VoiceJson, form=VoiceForm, answer=VoiceObject, status=201),
    ),
    Path(
        "DELETE",
        "/api/voices/{voice}",
        delete_voice,
        "suite",
        operation(path="voice", answer=VoiceDeleted),
    ),
    Path("GET", "/api/models", list_model_details, "suite", operation(answer=ModelDetails)),
    *USAGE_PATHS,
    *ADMIN_PATHS,
    Path("GET", "/health", show_health, "health", operation(answer=HealthAnswer, public=True)),
    Path(
        "GET",
        "/health/live",
        show_liveness,
        "health",
        operation(answer=StatusAnswer, public=True),
    ),
    Path(
        "GET",
        "/health/ready",
        show_readiness,
        "health",
        operation(answer=StatusAnswer, public=True),
    ),
)

SOCKETS: Mapping[str, ASGIApp] = {"/v1/realtime": serve_realtime}
"""What serves a WebSocket, by path; each path is in `PATHS` too, for plain requests."""

STRUCTS: Sequence[type[Struct]] = list(
    dict.fromkeys(kind for path in PATHS for kind in path.operation.structs)
)
"""What the descriptions refer to."""
