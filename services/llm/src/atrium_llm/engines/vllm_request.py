"""A job as vLLM's sampling parameters, and vLLM's errors as ours.

Imports vLLM, so only `vllm_model.py` imports it, when a model is loaded.
"""

from collections.abc import Mapping
from datetime import timedelta

from vllm import SamplingParams
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.exceptions import EngineDeadError

from atrium_common.errors import AtriumError, InvalidArgument, Overloaded, Unavailable
from atrium_llm.domain import (
    ChatInput,
    GenerationJob,
    JsonObject,
    Sampling,
    ToolMode,
)
from atrium_llm.tool_grammar import must_call, tool_calls_grammar
from atrium_llm.tools import ToolNotation


def sampling_params(
    job: GenerationJob,
    *,
    room: int,
    defaults: Mapping[str, float],
    notation: ToolNotation | None,
    seed: int | None,
) -> SamplingParams:
    """Makes vLLM's parameters.

    Args:
        job: What is asked for.
        room: Tokens that fit behind the prompt.
        defaults: The model's own generation config, by vLLM's names.
        notation: How the model writes tool calls, if it can.
        seed: Seed of the choices; ``None`` for a random one.
    """
    sampling = job.sampling
    temperature = _or(sampling.temperature, defaults, "temperature", 1.0)
    top_k = int(_or(sampling.top_k, defaults, "top_k", 0))
    if temperature == 0 and sampling.n > 1:
        # vLLM refuses several greedy choices; the likeliest token alone is the same.
        temperature, top_k = 1.0, 1
    return SamplingParams(
        n=sampling.n,
        max_tokens=min(sampling.max_tokens or room, room),
        min_tokens=min(sampling.min_tokens, room),
        temperature=temperature,
        top_p=_or(sampling.top_p, defaults, "top_p", 1.0),
        top_k=top_k,
        min_p=_or(sampling.min_p, defaults, "min_p", 0.0),
        presence_penalty=sampling.presence_penalty or 0.0,
        frequency_penalty=sampling.frequency_penalty or 0.0,
        repetition_penalty=_or(sampling.repetition_penalty, defaults, "repetition_penalty", 1.0),
        seed=seed,
        stop=list(sampling.stop) or None,
        logprobs=sampling.top_logprobs,
        logit_bias=dict(sampling.logit_bias) or None,
        structured_outputs=_structured_outputs(job, notation),
        # A notation that begins with a special token is read from the text.
        skip_special_tokens=not (notation is not None and notation.marker and _may_call(job)),
        output_kind=RequestOutputKind.DELTA,
    )


def _or(value: float | None, defaults: Mapping[str, float], name: str, otherwise: float) -> float:
    return value if value is not None else defaults.get(name, otherwise)


def _may_call(job: GenerationJob) -> bool:
    return (
        isinstance(job.input, ChatInput)
        and bool(job.input.tools)
        and job.input.tool_mode is not ToolMode.NONE
    )


def _structured_outputs(
    job: GenerationJob, notation: ToolNotation | None
) -> StructuredOutputsParams | None:
    chat = job.input
    if isinstance(chat, ChatInput) and notation is not None and must_call(chat):
        return StructuredOutputsParams(grammar=tool_calls_grammar(chat, notation))
    if job.response_format is None:
        return None
    if isinstance(job.response_format, JsonObject):
        return StructuredOutputsParams(json={"type": "object"})
    return StructuredOutputsParams(json=dict(job.response_format.schema))


def seed_for(sampling: Sampling) -> int | None:
    """Folds a 64-bit seed into the range that every device's generator takes."""
    return None if sampling.seed is None else sampling.seed & 0x7FFF_FFFF_FFFF


def from_vllm_error(error: Exception, job: GenerationJob | None) -> AtriumError | None:
    """Turns an error of vLLM into one of ours; ``None`` for a defect.

    Args:
        error: What vLLM raised.
        job: What was asked for, to name the field; ``None`` for an embedding.
    """
    if isinstance(error, EngineDeadError):
        return Unavailable("The model's engine has stopped.", retry_after=timedelta(seconds=10))
    if isinstance(error, GracefulHTTPError):
        return Overloaded("The engine has no room now.", retry_after=timedelta(seconds=1))
    if isinstance(error, VLLMClientError):
        field = _field(error, job)
        reason = str(error).splitlines()[0][:200]
        return InvalidArgument(f"{field or 'The request'} is refused: {reason}", field=field)
    return None


def _field(error: VLLMClientError, job: GenerationJob | None) -> str | None:
    if job is None:
        return "inputs"
    name = getattr(error, "parameter", None)
    if isinstance(name, str) and name in Sampling.__dataclass_fields__:
        return f"job.sampling.{name}"
    if name == "logprobs":
        return "job.sampling.top_logprobs"
    if job.response_format is not None:
        return "job.response_format"
    return "job.chat.tools" if isinstance(job.input, ChatInput) and job.input.tools else None
