"""Grammars that keep a model inside JSON, a schema or a tool call, token by token.

Built on llguidance, which works on a tokenizer's own JSON and knows no framework; the
engines that sample themselves ask a `Constraint` which tokens may come next.
"""

import json
from collections.abc import Mapping, Sequence

from llguidance import LLMatcher, LLTokenizer

from atrium_common.errors import InternalError, InvalidArgument
from atrium_llm.domain import JsonObject, JsonSchema
from atrium_llm.tools import ToolNotation

FIELD = "job.response_format"

_LAYOUT: dict[str, object] = {
    "whitespace_flexible": False,
    "key_separator": ": ",
    "item_separator": ", ",
}
"""JSON on one line: where spaces and line breaks are free, small models never end them."""


class Constraint:
    """The state of one choice inside its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        """Takes a matcher at its start."""
        self._matcher = matcher

    def allowed(self) -> bytes:
        """Returns one bit per token id, lowest bit first: 1 if the token may come next.

        Raises:
            InternalError: The grammar went over a limit while it was matched.
        """
        mask: bytes = self._matcher.compute_bitmask()
        self._check()
        return mask

    def accept(self, token: int) -> None:
        """Moves on by the token that was chosen.

        Raises:
            InternalError: The token was not allowed.
        """
        self._matcher.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        """True when nothing but the end may follow."""
        return bool(self._matcher.is_stopped())

    def fork(self) -> "Constraint":
        """Makes an independent copy in the same state."""
        return Constraint(self._matcher.deep_copy())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InternalError(
                "The answer could not be kept inside its format.", reason="CONSTRAINT_FAILED"
            )


class GrammarCompiler:
    """Makes constraints for one tokenizer. Slow to make: one per model, kept."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        """Takes the tokenizer with its vocabulary size and end tokens."""
        self._tokenizer = tokenizer

    def for_format(self, shape: JsonObject | JsonSchema) -> Constraint:
        """Makes the constraint of a response format. May take a second for large schemas.

        Raises:
            InvalidArgument: The schema uses something that can't be enforced.
        """
        schema = {"type": "object"} if isinstance(shape, JsonObject) else dict(shape.schema)
        return self._compile(LLMatcher.grammar_from_json_schema(schema, overrides=_LAYOUT), FIELD)

    def for_tool_calls(
        self,
        tools: Sequence[tuple[str, Mapping[str, object]]],
        notation: ToolNotation,
        *,
        many: bool,
    ) -> Constraint:
        """Makes the constraint of an answer that is nothing but tool calls.

        Args:
            tools: Name and parameters' schema of each tool that may be called.
            notation: How the model writes calls.
            many: True if more than one call may be made.

        Raises:
            InvalidArgument: A tool's schema uses something that can't be enforced.
        """
        calls = [_call_schema(name, schema, notation.arguments_key) for name, schema in tools]
        schema: dict[str, object] = calls[0] if len(calls) == 1 else {"anyOf": calls}
        if notation.array:
            most = {} if many else {"maxItems": 1}
            schema = {"type": "array", "items": schema, "minItems": 1, **most}
        body = f"%json {json.dumps({**schema, 'x-guidance': _LAYOUT})}"
        ends = (_literal(notation.opening), body, _literal(notation.closing))
        call = " ".join(part for part in ends if part)
        repeat = "call+" if many and notation.closing else "call"
        grammar = LLMatcher.grammar_from_lark(f"start: {repeat}\ncall: {call}\n")
        return self._compile(grammar, "job.chat.tools")

    def _compile(self, grammar: str, field: str) -> Constraint:
        matcher = LLMatcher(self._tokenizer, grammar)
        if matcher.is_error():
            reason = matcher.get_error().splitlines()[0][:200]
            raise InvalidArgument(f"{field} can't be enforced: {reason}", field=field)
        return Constraint(matcher)


def _literal(text: str) -> str:
    return json.dumps(text) if text else ""


def _call_schema(name: str, parameters: Mapping[str, object], key: str) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, key: dict(parameters)},
        "required": ["name", key],
        "additionalProperties": False,
    }
