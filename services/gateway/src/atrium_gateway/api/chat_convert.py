"""Chat requests into generations, and what the model says into OpenAI's answers."""

from collections.abc import Iterable, Sequence

from msgspec import UNSET, UnsetType

from atrium_common.errors import InvalidArgument
from atrium_gateway.api import chat_schema as schema
from atrium_gateway.api.chat_answer import AnswerFunction, AnswerToolCall
from atrium_gateway.api.chat_pictures import Pictures
from atrium_gateway.api.jobs import message_interval, sampling
from atrium_gateway.api.text_schema import Logprob, Logprobs
from atrium_gateway.upstreams import text

EMPTY_LOGPROBS = Logprobs([])


def generation(request: schema.ChatRequest, *, model: str, pictures: Pictures) -> text.Generation:
    """Makes the generation that a request asks for.

    Raises:
        InvalidArgument: Parameters contradict each other.
    """
    shape = request.response_format
    return text.Generation(
        model=model,
        prompt=text.Conversation(
            messages=[_message(item, at, pictures) for at, item in enumerate(request.messages)],
            tools=[_tool(item.function) for item in request.tools or ()],
            tool_mode=_tool_mode(request.tool_choice),
            tool_name=request.tool_choice.function.name
            if isinstance(request.tool_choice, schema.NamedTool)
            else "",
            parallel_tool_calls=request.parallel_tool_calls,
        ),
        min_interval=message_interval(request),
        sampling=sampling(
            request, max_tokens=max_tokens(request), top_logprobs=_top_logprobs(request)
        ),
        json_object=isinstance(shape, schema.JsonObjectFormat),
        json_schema=bytes(shape.json_schema.schema).decode()
        if isinstance(shape, schema.JsonSchemaFormat)
        else None,
    )


def logprobs(tokens: Sequence[text.TokenLogprob], *, wanted: bool) -> Logprobs | None:
    """Gives the log probabilities as OpenAI shows them; ``None`` if nobody asked."""
    if not wanted:
        return None
    return Logprobs([_logprob(token, with_top=True) for token in tokens])


def tool_calls(
    calls: Iterable[text.ToolCall], *, first_index: int | None = None
) -> list[AnswerToolCall] | UnsetType:
    """Gives the calls as OpenAI shows them; numbered from `first_index` in a stream."""
    shown = [
        AnswerToolCall(
            id=call.id,
            function=AnswerFunction(call.name, call.arguments),
            index=UNSET if first_index is None else first_index + at,
        )
        for at, call in enumerate(calls)
    ]
    return shown or UNSET


def _logprob(token: text.TokenLogprob, *, with_top: bool) -> Logprob:
    top = [_logprob(other, with_top=False) for other in token.top] if with_top else UNSET
    return Logprob(token.token, token.logprob, list(token.token_bytes), top)


def max_tokens(request: schema.ChatRequest) -> int | None:
    """Gives the length of an answer under either of its names.

    Raises:
        InvalidArgument: They contradict each other.
    """
    new, old = request.max_completion_tokens, request.max_tokens
    if new is not None and old is not None and new != old:
        raise InvalidArgument(
            "'max_tokens' and 'max_completion_tokens' contradict each other; give one.",
            field="max_tokens",
        )
    return old if new is None else new


def _top_logprobs(request: schema.ChatRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs is not None:
        raise InvalidArgument(
            "'top_logprobs' is only allowed when 'logprobs' is true.", field="top_logprobs"
        )
    return None


def _tool_mode(choice: object) -> str:
    if choice is None:
        return ""
    return choice if isinstance(choice, str) else "named"


def _tool(function: schema.Function) -> text.Tool:
    parameters = function.parameters
    return text.Tool(
        name=function.name,
        description=function.description or "",
        parameters="" if parameters is UNSET else bytes(parameters).decode(),
        strict=bool(function.strict),
    )


def _message(message: schema.Message, at: int, pictures: Pictures) -> text.Message:
    if isinstance(message, schema.ToolMessage):
        return text.Message(
            role="tool", content=_text(message.content), tool_call_id=message.tool_call_id
        )
    if isinstance(message, schema.AssistantMessage):
        return _assistant(message, at)
    role = message.__struct_config__.tag
    assert isinstance(role, str)  # noqa: S101 - every message type has its role as tag
    if isinstance(message, schema.UserMessage):
        content = _content(message.content, at, pictures)
    else:
        content = _text(message.content)
    return text.Message(role=role, content=content, name=message.name or "")


def _assistant(message: schema.AssistantMessage, at: int) -> text.Message:
    if not message.content and not message.tool_calls:
        raise InvalidArgument(
            "An assistant's message needs 'content' or 'tool_calls'.",
            field=f"messages[{at}].content",
        )
    return text.Message(
        role="assistant",
        content=_text(message.content or ()),
        name=message.name or "",
        tool_calls=[
            text.ToolCall(call.id, call.function.name, call.function.arguments)
            for call in message.tool_calls or ()
        ],
    )


def _text(content: str | Sequence[schema.TextPart]) -> Sequence[str]:
    return (content,) if isinstance(content, str) else [part.text for part in content]


def _content(
    content: str | Sequence[schema.TextPart | schema.ImagePart], at: int, pictures: Pictures
) -> Sequence[str | bytes]:
    if isinstance(content, str):
        return (content,)
    return [
        part.text if isinstance(part, schema.TextPart) else pictures[at, place]
        for place, part in enumerate(content)
    ]
