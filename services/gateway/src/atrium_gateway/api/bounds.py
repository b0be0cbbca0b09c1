"""Upper bounds of what text work may consume; admission reserves them.

No tokenizer here: a byte-level tokenizer makes at most one token of a UTF-8 byte, and
the model's window caps the rest. Where a token limit refuses such a bound, the prompt
is counted exactly before the request is (`jobs.py`).
"""

from collections.abc import Sequence

from atrium_gateway.upstreams.text import Conversation, Prompt

TEMPLATE_TOKENS = 128
"""What a chat template adds to a conversation, e.g. a default system message."""
MESSAGE_TOKENS = 16
"""What a chat template adds to each message, call or tool."""
IMAGE_TOKENS = 4096
"""More than what a seeing model of today makes of one image."""
UNKNOWN_WINDOW = 8192
"""Window assumed for a model whose catalogue entry names none."""


def prompt_bound(prompt: Prompt, window: int | None) -> int:
    """Most tokens that a prompt may be; never more than the model's window."""
    tokens = _conversation(prompt) if isinstance(prompt, Conversation) else _plain(prompt)
    return min(tokens, window) if window else tokens


def answer_bound(max_tokens: int | None, window: int | None) -> int:
    """Most tokens that one answer may have."""
    if max_tokens is None:
        return window or UNKNOWN_WINDOW
    return min(max_tokens, window) if window else max_tokens


def text_tokens(text: str) -> int:
    """Most tokens that a text may be."""
    return len(text) if text.isascii() else len(text.encode())


def _plain(prompt: str | Sequence[int]) -> int:
    return text_tokens(prompt) + MESSAGE_TOKENS if isinstance(prompt, str) else len(prompt)


def _conversation(chat: Conversation) -> int:
    tokens = TEMPLATE_TOKENS
    for message in chat.messages:
        tokens += MESSAGE_TOKENS + text_tokens(message.name) + text_tokens(message.tool_call_id)
        for part in message.content:
            tokens += text_tokens(part) if isinstance(part, str) else IMAGE_TOKENS
        for call in message.tool_calls:
            tokens += MESSAGE_TOKENS + text_tokens(call.id + call.name + call.arguments)
    for tool in chat.tools:
        # Templates print schemas with line breaks and indents.
        tokens += MESSAGE_TOKENS + text_tokens(tool.name + tool.description)
        tokens += 2 * text_tokens(tool.parameters)
    return tokens
