"""Prompts: conversations through the model's chat template, text, token ids.

What a model's template has no place for is refused by name here. The generator calls it
off the event loop, because long prompts take a while to tokenize.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import jinja2
from transformers import PreTrainedTokenizerFast

from atrium_common.errors import InvalidArgument
from atrium_llm.domain import (
    ChatInput,
    ChatMessage,
    ImagePart,
    PromptInput,
    Role,
    TextInput,
    Tool,
    ToolMode,
)
from atrium_llm.tool_grammar import must_call
from atrium_llm.tools import ToolNotation, notation_of


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the model reads it.

    Attributes:
        ids: Token ids, at least one.
        field: Path of the request field that it came from.
    """

    ids: Sequence[int]
    field: str


class Prompter:
    """Makes prompts for one model."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, vocabulary: int) -> None:
        """Takes the tokenizer and the number of token ids that the model knows."""
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        template = tokenizer.chat_template
        self._template: str = template if isinstance(template, str) else ""

    @property
    def notation(self) -> ToolNotation | None:
        """How the model writes tool calls, or ``None`` if it can't."""
        return notation_of(self._template)

    def prompt(self, source: PromptInput) -> Prompt:
        """Makes the prompt of a request.

        Raises:
            InvalidArgument: The model can't read it; the error names the field.
        """
        if isinstance(source, ChatInput):
            text = self._render(source)
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            return self._checked(ids, "job.chat.messages")
        if isinstance(source, TextInput):
            return self._checked(self._tokenizer.encode(source.text), "job.prompt")
        for token in source.ids:
            if not 0 <= token < self._vocabulary:
                raise _refused("job.prompt_ids", f"names {token}, an unknown token.")
        return self._checked(list(source.ids), "job.prompt_ids")

    def echo(self, source: PromptInput) -> str:
        """Returns the prompt's text, for requests that want it before the answer."""
        if isinstance(source, TextInput):
            return source.text
        if isinstance(source, ChatInput):
            raise _refused("job.echo", "is only for prompt and prompt_ids.")
        return str(self._tokenizer.decode(list(source.ids), skip_special_tokens=True))

    @staticmethod
    def _checked(ids: list[int], field: str) -> Prompt:
        if not ids:
            raise _refused(field, "must not be empty.")
        return Prompt(ids, field)

    def _render(self, chat: ChatInput) -> str:
        if not self._template:
            raise _refused("job.chat", "needs a chat model; this one only completes text.")
        messages = [self._message(m, index) for index, m in enumerate(chat.messages)]
        tools = [_tool(tool) for tool in self._usable_tools(chat)] or None
        try:
            text = self._tokenizer.apply_chat_template(
                cast("list[dict[str, str]]", messages),  # narrower than what templates take
                tools=tools,  # type: ignore[arg-type]
                tokenize=False,
                add_generation_prompt=True,
            )
        except (jinja2.TemplateError, TypeError, KeyError) as error:
            # Templates refuse what they can't render, e.g. two users in a row.
            reason = str(error).splitlines()[0][:200] if str(error) else "no reason given"
            raise _refused("job.chat.messages", f"do not fit the template: {reason}") from error
        return str(text)

    def _usable_tools(self, chat: ChatInput) -> Sequence[Tool]:
        if not chat.tools or chat.tool_mode is ToolMode.NONE:
            return ()
        if self.notation is None:
            raise _refused("job.chat.tools", "are not supported by this model.")
        constrained = must_call(chat)
        for index, tool in enumerate(chat.tools):
            if tool.strict and not constrained:
                field = f"job.chat.tools[{index}].strict"
                raise _refused(field, "is only honoured with a required or named tool choice.")
        return chat.tools

    def _message(self, message: ChatMessage, index: int) -> dict[str, object]:
        field = f"job.chat.messages[{index}]"
        role = message.role
        if role is Role.DEVELOPER and "developer" not in self._template:
            role = Role.SYSTEM
        if (role is Role.TOOL or message.tool_calls) and self.notation is None:
            raise _refused(f"{field}.role", "is about tools, which this model does not support.")
        texts: list[str] = []
        for part_index, part in enumerate(message.content):
            if isinstance(part, ImagePart):
                raise _refused(f"{field}.content[{part_index}].image", "is not seen by this model.")
            texts.append(part.text)
        rendered: dict[str, object] = {"role": role.value, "content": "".join(texts)}
        if message.name is not None:
            rendered["name"] = message.name
        if message.tool_call_id is not None:
            rendered["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            rendered["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.loads(call.arguments)},
                }
                for call in message.tool_calls
            ]
        return rendered


def _tool(tool: Tool) -> dict[str, object]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": dict(parameters)}
    return {"type": "function", "function": function}


def _refused(field: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {why}", field=field)
