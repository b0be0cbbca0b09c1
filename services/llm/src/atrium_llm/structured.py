"""Grammars that keep a model inside JSON, a schema or a tool call, token by token.

Built on llguidance, which works on a tokenizer's own JSON and knows no framework; the
engines that sample themselves ask a `Constraint` which tokens may come next.
"""

from llguidance import LLMatcher, LLTokenizer

from atrium_common.errors import InternalError, InvalidArgument
from atrium_llm.domain import ChatInput, JsonObject, JsonSchema
from atrium_llm.tool_grammar import ONE_LINE, tool_calls_grammar
from atrium_llm.tools import ToolNotation

FIELD = "job.response_format"


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
        grammar = LLMatcher.grammar_from_json_schema({**schema, "x-guidance": ONE_LINE})
        return self._compile(grammar, FIELD)

    def for_tool_calls(self, chat: ChatInput, notation: ToolNotation) -> Constraint:
        """Makes the constraint of an answer that is nothing but tool calls.

        Args:
            chat: A conversation that must be answered by calls.
            notation: How the model writes calls.

        Raises:
            InvalidArgument: A tool's schema uses something that can't be enforced.
        """
        grammar = LLMatcher.grammar_from_lark(tool_calls_grammar(chat, notation))
        return self._compile(grammar, "job.chat.tools")

    def _compile(self, grammar: str, field: str) -> Constraint:
        matcher = LLMatcher(self._tokenizer, grammar)
        if matcher.is_error():
            reason = matcher.get_error().splitlines()[0][:200]
            raise InvalidArgument(f"{field} can't be enforced: {reason}", field=field)
        return Constraint(matcher)
