"""The names in traces, all in one place: OpenTelemetry's conventions and our own.

Sources: semantic conventions 1.37 for HTTP, RPC and generative AI (`gen_ai.*`, experimental:
when they change, this module changes). What OpenTelemetry has no name for begins with
`atrium.`. There is no name for content here, and none for tenants or users.
"""

from collections.abc import Mapping
from typing import Final

from atrium_common.domain import Capability, Usage

SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE: Final = "service.instance.id"

HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
RPC_SYSTEM: Final = "rpc.system"
RPC_SERVICE: Final = "rpc.service"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.grpc.status_code"
ERROR_TYPE: Final = "error.type"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

REQUEST_ID: Final = "atrium.request_id"
CAPABILITY: Final = "atrium.capability"
CANCELLED: Final = "atrium.cancelled"
REPLAYED: Final = "atrium.replayed"
BATCH_STEPS: Final = "atrium.batch.steps"
BATCH_MEAN: Final = "atrium.batch.rows.mean"
BATCH_MOST: Final = "atrium.batch.rows.max"

ADMISSION: Final = "admission"
IDEMPOTENCY: Final = "idempotency"
QUEUE: Final = "queue"
INFERENCE: Final = "inference"

OPERATIONS: Final[Mapping[str, str]] = {
    Capability.CHAT: "chat",
    Capability.COMPLETION: "text_completion",
    Capability.EMBEDDING: "embeddings",
    Capability.RERANK: "rerank",
    Capability.TRANSCRIPTION: "transcription",
    Capability.SPEECH: "speech",
    Capability.TEXT_TO_IMAGE: "image_generation",
    Capability.IMAGE_TO_IMAGE: "image_edit",
    Capability.IMAGE_TO_TEXT: "image_description",
    Capability.OCR: "ocr",
}
"""`gen_ai.operation.name` by capability; the first three are the convention's own."""


def work_attributes(capability: str, model: str) -> dict[str, str]:
    """What a call for a model is."""
    return {
        OPERATION: OPERATIONS.get(capability, capability),
        PROVIDER: "atrium",
        REQUEST_MODEL: model,
        CAPABILITY: capability,
    }


def usage_attributes(usage: Usage) -> dict[str, str | int | float]:
    """What was consumed: tokens by the convention's names, other units by ours; no zeros."""
    found: dict[str, str | int | float] = {
        RESPONSE_MODEL: usage.model,
        INPUT_TOKENS: usage.input_tokens,
        OUTPUT_TOKENS: usage.output_tokens,
        "atrium.usage.characters": usage.characters,
        "atrium.usage.images": usage.images,
        "atrium.usage.pages": usage.pages,
        "atrium.usage.input_audio_seconds": usage.input_audio.total_seconds(),
        "atrium.usage.output_audio_seconds": usage.output_audio.total_seconds(),
        "atrium.queue_seconds": usage.queue_time.total_seconds(),
        "atrium.inference_seconds": usage.inference_time.total_seconds(),
        "atrium.engine": usage.engine,
    }
    return {name: value for name, value in found.items() if value}
