"""A job as the arguments of an OpenAI-compatible server; `engines/openai.py` sends them."""

import base64
import json
from collections.abc import Mapping, Sequence

from atrium_common.errors import InvalidArgument
from atrium_llm.domain import (
    ChatInput,
    ChatMessage,
    EmbeddingJob,
    GenerationJob,
    ImagePart,
    JsonObject,
    JsonSchema,
    Role,
    Sampling,
    TextInput,
    TextPart,
    Tool,
    ToolMode,
)

_OWN_EXTENSIONS = ("top_k", "min_p", "repetition_penalty", "min_tokens")
"""Fields that OpenAI's API lacks and that some servers take all the same."""

_MEDIA_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def chat_arguments(
    job: GenerationJob, chat: ChatInput, *, token_limit: str, extensions: Sequence[str]
) -> dict[str, object]:
    """Makes the arguments of a chat completion, without the model's name.

    Args:
        job: What is asked for.
        chat: Its input.
        token_limit: What the server calls the limit, ``"max_completion_tokens"`` (OpenAI
            itself) or ``"max_tokens"`` (most others).
        extensions: Fields beyond OpenAI's API that the server takes.

    Raises:
        InvalidArgument: The server knows no such field.
    """
    arguments = _sampling(job.sampling, token_limit=token_limit, extensions=extensions)
    if job.sampling.top_logprobs is not None:
        arguments["logprobs"] = True
        arguments["top_logprobs"] = job.sampling.top_logprobs
    arguments["messages"] = [_message(message) for message in chat.messages]
    if chat.tools:
        arguments["tools"] = [_tool(tool) for tool in chat.tools]
        arguments["tool_choice"] = (
            {"type": "function", "function": {"name": chat.tool_name}}
            if chat.tool_mode is ToolMode.NAMED
            else str(chat.tool_mode)
        )
        if not chat.parallel_tool_calls:
            arguments["parallel_tool_calls"] = False
    if isinstance(job.response_format, JsonObject):
        arguments["response_format"] = {"type": "json_object"}
    elif isinstance(job.response_format, JsonSchema):
        arguments["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": "answer",
                "schema": dict(job.response_format.schema),
                "strict": True,
            },
        }
    return arguments


def completion_arguments(job: GenerationJob, *, extensions: Sequence[str]) -> dict[str, object]:
    """Makes the arguments of a text completion, without the model's name.

    Raises:
        InvalidArgument: The server knows no such field.
    """
    if job.response_format is not None:
        raise _unsupported("job.response_format")
    arguments = _sampling(job.sampling, token_limit="max_tokens", extensions=extensions)  # noqa: S106
    if job.sampling.top_logprobs is not None:
        arguments["logprobs"] = job.sampling.top_logprobs
    if isinstance(job.input, TextInput):
        arguments["prompt"] = job.input.text
    elif not isinstance(job.input, ChatInput):
        arguments["prompt"] = list(job.input.ids)
    if job.echo:
        arguments["echo"] = True
    return arguments


def embedding_arguments(job: EmbeddingJob) -> dict[str, object]:
    """Makes the arguments of an embedding, without the model's name.

    Raises:
        InvalidArgument: Inputs are of both kinds, or are to be truncated.
    """
    if job.truncate:
        raise _unsupported("truncate")
    texts = [item.text for item in job.inputs if isinstance(item, TextInput)]
    if texts and len(texts) != len(job.inputs):
        raise InvalidArgument("inputs must be all text or all ids for this model.", field="inputs")
    ids = [list(item.ids) for item in job.inputs if not isinstance(item, TextInput)]
    arguments: dict[str, object] = {"input": texts or ids, "encoding_format": "float"}
    if job.dimensions is not None:
        arguments["dimensions"] = job.dimensions
    return arguments


def _unsupported(field: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} is not supported by the provider of this model.",
        reason="UNSUPPORTED_PARAMETER",
        field=field,
    )


def _sampling(
    sampling: Sampling, *, token_limit: str, extensions: Sequence[str]
) -> dict[str, object]:
    wanted: dict[str, object | None] = {
        token_limit: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "n": sampling.n if sampling.n > 1 else None,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
    }
    arguments: dict[str, object] = {
        key: value for key, value in wanted.items() if value is not None
    }
    beyond = {name: getattr(sampling, name) for name in _OWN_EXTENSIONS}
    extra = {name: value for name, value in beyond.items() if value not in (None, 0)}
    for name in extra:
        if name not in extensions:
            raise _unsupported(f"job.sampling.{name}")
    if extra:
        arguments["extra_body"] = extra
    return arguments


def _message(message: ChatMessage) -> dict[str, object]:
    wire: dict[str, object] = {"role": str(message.role)}
    if any(isinstance(part, ImagePart) for part in message.content):
        wire["content"] = [_part(part) for part in message.content]
    else:
        wire["content"] = "".join(
            part.text for part in message.content if isinstance(part, TextPart)
        )
    if message.name:
        wire["name"] = message.name
    if message.tool_calls:
        wire["content"] = wire["content"] or None
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.role is Role.TOOL:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _part(part: TextPart | ImagePart) -> Mapping[str, object]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = next(
        (kind for start, kind in _MEDIA_TYPES.items() if part.data.startswith(start)), "image/webp"
    )
    data = base64.b64encode(part.data).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def _tool(tool: Tool) -> Mapping[str, object]:
    function: dict[str, object] = {"name": tool.name, "description": tool.description}
    if tool.parameters is not None:
        # The domain's mapping may be frozen; the client sends plain JSON.
        function["parameters"] = json.loads(json.dumps(tool.parameters))
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}
