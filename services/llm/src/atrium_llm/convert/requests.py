"""Requests of the wire as jobs of the domain, in the ranges that llm.proto states."""

from collections.abc import Sequence

from atrium.llm.v1 import llm_pb2 as pb
from atrium_common.domain import Capability
from atrium_common.wire import duration_from_proto
from atrium_llm.convert.chat import chat_input
from atrium_llm.convert.checks import count, json_schema, real, refuse, text, whole
from atrium_llm.domain import (
    EmbeddingJob,
    GenerationJob,
    JsonObject,
    JsonSchema,
    PromptInput,
    RerankJob,
    Sampling,
    TextInput,
    TokenInput,
)

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_CHOICES = 16
MAX_TOP_LOGPROBS = 20
MAX_LOGIT_BIASES = 1024
MAX_EMBEDDING_INPUTS = 2048
MAX_EMBEDDING_VALUES = 1_000_000
"""What fits in the largest message that a client takes (4 MiB of 4-byte floats)."""
MAX_DOCUMENTS = 1024


def input_capability(job: pb.GenerationJob | pb.CountTokensRequest) -> Capability:
    """Tells which capability the input asks for: conversations chat, the rest completion."""
    return Capability.CHAT if job.WhichOneof("input") == "chat" else Capability.COMPLETION


def generation_job(wire: pb.GenerationJob, *, model: str) -> GenerationJob:
    """Makes the job of a GenerateText or StreamGenerateText request.

    Args:
        wire: The request's `job`.
        model: Catalogue id that `wire.model` resolved to.

    Raises:
        InvalidArgument: a field is out of its range; `field` is its path.
    """
    if wire.echo and wire.WhichOneof("input") == "chat":
        raise refuse("job.echo", "is only for prompt and prompt_ids.")
    if wire.echo and wire.sampling.HasField("top_logprobs"):
        raise refuse("job.echo", "can't be combined with sampling.top_logprobs.")
    return GenerationJob(
        model=model,
        input=_generation_input(wire),
        sampling=_sampling(wire.sampling),
        response_format=_response_format(wire),
        echo=wire.echo,
    )


def min_interval(request: pb.StreamGenerateTextRequest) -> float:
    """Gives the least time between two messages, in seconds.

    Raises:
        InvalidArgument: It is not from 0 to 1 s.
    """
    seconds = duration_from_proto(request.min_interval).total_seconds()
    return real("min_interval", seconds, 0.0, 1.0)


def _generation_input(wire: pb.GenerationJob) -> PromptInput:
    kind = wire.WhichOneof("input")
    if kind == "chat":
        return chat_input(wire.chat, "job.chat")
    if kind == "prompt":
        return TextInput(text("job.prompt", wire.prompt))
    if kind == "prompt_ids":
        return _token_ids(wire.prompt_ids, "job.prompt_ids")
    raise refuse("job.input", "must be chat, prompt or prompt_ids.")


def _token_ids(wire: pb.TokenIds, field: str) -> TokenInput:
    if not wire.ids:
        raise refuse(f"{field}.ids", "must not be empty.")
    if min(wire.ids) < 0:
        raise refuse(f"{field}.ids", "must be token ids, 0 or more.")
    return TokenInput(tuple(wire.ids))


def _response_format(wire: pb.GenerationJob) -> JsonObject | JsonSchema | None:
    kind = wire.response_format.WhichOneof("format")
    if kind == "json_object":
        if not wire.response_format.json_object:
            raise refuse("job.response_format.json_object", "must be true, or left out.")
        return JsonObject()
    if kind == "json_schema":
        field = "job.response_format.json_schema"
        return JsonSchema(json_schema(field, wire.response_format.json_schema))
    return None


def _sampling(wire: pb.SamplingParams) -> Sampling:
    field = "job.sampling"
    max_tokens = _whole(wire, "max_tokens", 1)
    min_tokens = _whole(wire, "min_tokens", 0)
    if max_tokens is not None and min_tokens is not None and min_tokens > max_tokens:
        raise refuse(f"{field}.min_tokens", "must not be more than max_tokens.")
    return Sampling(
        max_tokens=max_tokens,
        temperature=_real(wire, "temperature", 0, 2),
        top_p=_real(wire, "top_p", 0, 1, above_low=True),
        top_k=_whole(wire, "top_k", 1),
        min_p=_real(wire, "min_p", 0, 1),
        presence_penalty=_real(wire, "presence_penalty", -2, 2),
        frequency_penalty=_real(wire, "frequency_penalty", -2, 2),
        repetition_penalty=_real(wire, "repetition_penalty", 0, 2, above_low=True),
        seed=wire.seed if wire.HasField("seed") else None,
        stop=_stops(wire.stop, f"{field}.stop"),
        n=_whole(wire, "n", 1, MAX_CHOICES) or 1,
        top_logprobs=_whole(wire, "top_logprobs", 0, MAX_TOP_LOGPROBS),
        logit_bias=_logit_bias(wire, f"{field}.logit_bias"),
        min_tokens=min_tokens or 0,
    )


def _whole(wire: pb.SamplingParams, name: str, low: int, high: int | None = None) -> int | None:
    if not wire.HasField(name):  # type: ignore[arg-type]
        return None
    value: int = getattr(wire, name)
    return whole(f"job.sampling.{name}", value, low, high)


def _real(
    wire: pb.SamplingParams, name: str, low: float, high: float, *, above_low: bool = False
) -> float | None:
    if not wire.HasField(name):  # type: ignore[arg-type]
        return None
    value: float = getattr(wire, name)
    return real(f"job.sampling.{name}", value, low, high, above_low=above_low)


def _stops(wire: Sequence[str], field: str) -> tuple[str, ...]:
    count(field, len(wire), 0, MAX_STOPS)
    return tuple(
        text(f"{field}[{index}]", stop, MAX_STOP_CHARACTERS) for index, stop in enumerate(wire)
    )


def _logit_bias(wire: pb.SamplingParams, field: str) -> dict[int, float]:
    count(field, len(wire.logit_bias), 0, MAX_LOGIT_BIASES)
    biases = dict(wire.logit_bias)
    for token, bias in biases.items():
        whole(f"{field}[{token}]", token, 0)
        real(f"{field}[{token}]", bias, -100, 100)
    return biases


def embedding_job(
    wire: pb.EmbedTextRequest, *, model: str, dimensions: int | None = None
) -> EmbeddingJob:
    """Makes the job of an EmbedText request.

    Args:
        wire: The request.
        model: Catalogue id that `wire.model` resolved to.
        dimensions: Values in a vector of this model, if known.

    Raises:
        InvalidArgument: a field is out of its range; `field` is its path.
    """
    count("inputs", len(wire.inputs), 1, MAX_EMBEDDING_INPUTS)
    values = wire.dimensions if wire.HasField("dimensions") else dimensions or 0
    if len(wire.inputs) * values > MAX_EMBEDDING_VALUES:
        most = MAX_EMBEDDING_VALUES // values
        raise refuse("inputs", f"must have at most {most} elements at {values} dimensions.")
    return EmbeddingJob(
        model=model,
        inputs=tuple(
            _embedding_input(item, f"inputs[{index}]") for index, item in enumerate(wire.inputs)
        ),
        dimensions=whole("dimensions", wire.dimensions, 1) if wire.HasField("dimensions") else None,
        truncate=wire.truncate,
    )


def _embedding_input(wire: pb.EmbeddingInput, field: str) -> TextInput | TokenInput:
    kind = wire.WhichOneof("input")
    if kind == "text":
        return TextInput(text(f"{field}.text", wire.text))
    if kind == "ids":
        return _token_ids(wire.ids, f"{field}.ids")
    raise refuse(field, "must hold text or ids.")


def rerank_job(wire: pb.RerankDocumentsRequest, *, model: str) -> RerankJob:
    """Makes the job of a RerankDocuments request; `model` is the resolved catalogue id.

    Raises:
        InvalidArgument: a field is out of its range; `field` is its path.
    """
    count("documents", len(wire.documents), 1, MAX_DOCUMENTS)
    return RerankJob(
        model=model,
        query=text("query", wire.query),
        documents=tuple(
            text(f"documents[{index}]", document) for index, document in enumerate(wire.documents)
        ),
        top_n=whole("top_n", wire.top_n, 1) if wire.HasField("top_n") else None,
    )


def prompt_to_count(wire: pb.CountTokensRequest) -> PromptInput:
    """Makes the input of a CountTokens request.

    Raises:
        InvalidArgument: no input, or a field of it is out of its range.
    """
    kind = wire.WhichOneof("input")
    if kind == "chat":
        return chat_input(wire.chat, "chat")
    if kind == "prompt":
        return TextInput(text("prompt", wire.prompt))
    raise refuse("input", "must be chat or prompt.")
