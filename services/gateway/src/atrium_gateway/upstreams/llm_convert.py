"""The llm service's messages from and to the gateway's terms; used by `llm.py` alone."""

from collections.abc import Sequence
from datetime import timedelta

from atrium.llm.v1 import llm_pb2
from atrium_common.wire import duration_to_proto
from atrium_gateway.upstreams.text import (
    Conversation,
    Delta,
    Generation,
    Message,
    Prompt,
    Sampling,
    TokenLogprob,
    ToolCall,
)

_ROLES = {
    "system": llm_pb2.ROLE_SYSTEM,
    "developer": llm_pb2.ROLE_DEVELOPER,
    "user": llm_pb2.ROLE_USER,
    "assistant": llm_pb2.ROLE_ASSISTANT,
    "tool": llm_pb2.ROLE_TOOL,
}
_TOOL_MODES = {
    "auto": llm_pb2.ToolChoice.MODE_AUTO,
    "none": llm_pb2.ToolChoice.MODE_NONE,
    "required": llm_pb2.ToolChoice.MODE_REQUIRED,
    "named": llm_pb2.ToolChoice.MODE_NAMED,
}
_FINISH = {
    llm_pb2.FINISH_REASON_STOP: "stop",
    llm_pb2.FINISH_REASON_LENGTH: "length",
    llm_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    llm_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def generation(job: Generation) -> llm_pb2.GenerationJob:
    """Converts a generation."""
    message = llm_pb2.GenerationJob(
        model=job.model, sampling=_sampling(job.sampling), echo=job.echo
    )
    set_prompt(message, job.prompt)
    if job.json_schema is not None:
        message.response_format.json_schema = job.json_schema
    elif job.json_object:
        message.response_format.json_object = True
    return message


def request(job: Generation) -> llm_pb2.StreamGenerateTextRequest:
    """Converts a generation into the request of its RPC."""
    message = llm_pb2.StreamGenerateTextRequest(job=generation(job))
    if job.min_interval:
        message.min_interval.CopyFrom(duration_to_proto(timedelta(seconds=job.min_interval)))
    return message


def set_prompt(message: llm_pb2.GenerationJob | llm_pb2.CountTokensRequest, prompt: Prompt) -> None:
    """Puts a prompt into its place in the message."""
    if isinstance(prompt, Conversation):
        _fill_chat(message.chat, prompt)
    elif isinstance(prompt, str):
        message.prompt = prompt
    elif isinstance(message, llm_pb2.GenerationJob):
        message.prompt_ids.ids.extend(prompt)
    else:
        raise TypeError("token ids are counted without the service")


def inputs(items: Sequence[str | Sequence[int]]) -> list[llm_pb2.EmbeddingInput]:
    """Converts what is to be embedded."""
    return [
        llm_pb2.EmbeddingInput(text=item)
        if isinstance(item, str)
        else llm_pb2.EmbeddingInput(ids=llm_pb2.TokenIds(ids=item))
        for item in items
    ]


def vectors(reply: llm_pb2.EmbedTextResponse) -> Sequence[Sequence[float]]:
    """Gives the vectors, in the order of the inputs."""
    return [embedding.values for embedding in reply.embeddings]


def deltas(message: llm_pb2.StreamGenerateTextResponse) -> Sequence[Delta]:
    """Gives what is new."""
    return [_delta(delta) for delta in message.deltas]


def whole(message: llm_pb2.GenerateTextResponse) -> Sequence[Delta]:
    """Gives each choice as the one delta that it then has."""
    return [_delta(choice) for choice in message.choices]


def _delta(delta: llm_pb2.ChoiceDelta | llm_pb2.Choice) -> Delta:
    calls, tokens = delta.tool_calls, delta.logprobs
    return Delta(
        delta.index,
        delta.text,
        _FINISH.get(delta.finish_reason),
        [ToolCall(call.id, call.name, call.arguments) for call in calls] if calls else (),
        [_logprob(item) for item in tokens] if tokens else (),
    )


def _logprob(item: llm_pb2.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(
        item.token, item.token_bytes, item.logprob, [_logprob(other) for other in item.top]
    )


def _sampling(sampling: Sampling) -> llm_pb2.SamplingParams:
    return llm_pb2.SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        stop=sampling.stop,
        n=sampling.n,
        top_logprobs=sampling.top_logprobs,
        logit_bias=sampling.logit_bias,
        min_tokens=sampling.min_tokens,
    )


def _fill_chat(chat: llm_pb2.ChatInput, conversation: Conversation) -> None:
    for message in conversation.messages:
        _fill_message(chat.messages.add(), message)
    for tool in conversation.tools:
        chat.tools.add(
            name=tool.name,
            description=tool.description,
            parameters=tool.parameters,
            strict=tool.strict,
        )
    if conversation.tool_mode:
        chat.tool_choice.mode = _TOOL_MODES[conversation.tool_mode]
        chat.tool_choice.name = conversation.tool_name
    if conversation.parallel_tool_calls is not None:
        chat.parallel_tool_calls = conversation.parallel_tool_calls


def _fill_message(wire: llm_pb2.ChatMessage, message: Message) -> None:
    wire.role = _ROLES[message.role]
    wire.name = message.name
    wire.tool_call_id = message.tool_call_id
    for part in message.content:
        if isinstance(part, str):
            wire.content.add(text=part)
        else:
            wire.content.add(image=part)
    for call in message.tool_calls:
        wire.tool_calls.add(id=call.id, name=call.name, arguments=call.arguments)
