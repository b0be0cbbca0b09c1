"""Upper bounds of what a job may consume; admission reserves them before any work.

Bounds are computed without a tokenizer, so that a refused request costs almost
nothing. A byte-level tokenizer, the kind with the longest output, makes at most one
token of each UTF-8 byte; the context window caps the rest.
"""

import json

from atrium_common.domain import Usage
from atrium_llm.domain import (
    ChatInput,
    EmbeddingJob,
    GenerationJob,
    ImagePart,
    PromptInput,
    RerankJob,
    TextInput,
    TokenInput,
)

TEMPLATE_TOKENS = 128
"""What a chat template adds to a conversation, e.g. a default system message."""
MESSAGE_TOKENS = 16
"""What a chat template adds to each message or tool: role, separators."""
IMAGE_TOKENS = 4096
"""More than what a seeing model of today makes of one image."""
UNKNOWN_CONTEXT = 8192
"""Answers of models whose window is unknown are reserved up to this many tokens;
the heartbeat grows a reservation that turns out too small."""


def generation_bound(job: GenerationJob, *, context_length: int) -> Usage:
    """Bounds a generation.

    Args:
        job: What is asked for.
        context_length: The model's window in tokens, 0 if unknown.

    Returns:
        Usage with the most input and output tokens that the job may consume.
    """
    window = context_length or UNKNOWN_CONTEXT
    read = _prompt_tokens(job.input)
    if context_length:
        read = min(read, context_length)
    wanted = job.sampling.max_tokens
    # The shortest prompt leaves the longest answer, so the prompt's own bound,
    # an overestimate, must not be taken off the window here.
    written = window if wanted is None else min(wanted, context_length or wanted)
    return Usage(
        model=job.model,
        input_tokens=read,
        output_tokens=written * job.sampling.n,
        estimated=True,
    )


def embedding_bound(job: EmbeddingJob, *, context_length: int) -> Usage:
    """Bounds an embedding; arguments as for `generation_bound`."""
    tokens = (_prompt_tokens(item) for item in job.inputs)
    total = sum(min(count, context_length) if context_length else count for count in tokens)
    return Usage(model=job.model, input_tokens=total, estimated=True)


def rerank_bound(job: RerankJob, *, context_length: int) -> Usage:
    """Bounds a ranking, which reads the query once for each document."""
    query = _text_tokens(job.query) + MESSAGE_TOKENS
    tokens = (query + _text_tokens(document) for document in job.documents)
    total = sum(min(count, context_length) if context_length else count for count in tokens)
    return Usage(model=job.model, input_tokens=total, estimated=True)


def _text_tokens(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _prompt_tokens(prompt: PromptInput) -> int:
    if isinstance(prompt, TokenInput):
        return len(prompt.ids)
    if isinstance(prompt, TextInput):
        return _text_tokens(prompt.text) + MESSAGE_TOKENS
    return _chat_tokens(prompt)


def _chat_tokens(chat: ChatInput) -> int:
    total = TEMPLATE_TOKENS
    for message in chat.messages:
        total += MESSAGE_TOKENS + _text_tokens(message.name or "")
        total += _text_tokens(message.tool_call_id or "")
        for part in message.content:
            total += IMAGE_TOKENS if isinstance(part, ImagePart) else _text_tokens(part.text)
        for call in message.tool_calls:
            total += MESSAGE_TOKENS + _text_tokens(call.id + call.name + call.arguments)
    for tool in chat.tools:
        schema = json.dumps(tool.parameters, indent=4) if tool.parameters else ""
        total += MESSAGE_TOKENS + _text_tokens(tool.name + tool.description + schema)
    return total
