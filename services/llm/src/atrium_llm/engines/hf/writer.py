"""From a chosen token to what the reader sees: text, tool calls, the reason to end.

The loop calls it once per choice and step.
"""

from collections.abc import Sequence

from atrium_llm.domain import ChoiceDelta, FinishReason, TokenLogprob, ToolCall
from atrium_llm.engines.hf.sampler import Picked
from atrium_llm.engines.hf.sequence import Choice
from atrium_llm.engines.hf.vocabulary import Vocabulary


class Writer:
    """Extends choices token by token; keeps nothing of its own."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Takes the model's tokens."""
        self._vocabulary = vocabulary

    def extend(self, choice: Choice, picked: Picked) -> ChoiceDelta | None:
        """Adds one token to a choice; returns what the reader sees of it, if anything.

        Sets `choice.ended` with its last token.

        Raises:
            InternalError: The choice's grammar failed.
        """
        request, token = choice.request, picked.token
        first = choice.generated == 0
        choice.tokens.append(token)
        choice.generated += 1
        request.output_tokens += 1
        if request.plan.counts_tokens:
            choice.counts[token] += 1
        ended = token in self._vocabulary.end_tokens
        text = ""
        if not ended:
            may_stop = choice.generated >= request.plan.min_tokens
            text = choice.text.push(self._vocabulary.text_bytes(token), may_stop=may_stop)
            if choice.constraint is not None:
                choice.constraint.accept(token)
        return self._delta(choice, picked, request.echo + text if first else text, ended=ended)

    def _delta(
        self, choice: Choice, picked: Picked, text: str, *, ended: bool
    ) -> ChoiceDelta | None:
        request = choice.request
        finish: FinishReason | None = None
        complete = choice.constraint is not None and choice.constraint.complete
        if ended or choice.text.stop is not None or complete:
            finish = FinishReason.STOP
        elif choice.generated >= request.limit:
            finish = FinishReason.LENGTH
        if finish is not None:
            choice.ended = True
            text += choice.text.flush()
        calls: Sequence[ToolCall] = ()
        if choice.tools is not None:
            text, calls = choice.tools.push(text, last=choice.ended)
            choice.ended = choice.ended or choice.tools.complete
            if choice.tools.complete or (choice.tools.called and finish is FinishReason.STOP):
                finish = FinishReason.TOOL_CALLS
        logprobs: tuple[TokenLogprob, ...] = ()
        if request.plan.top_logprobs >= 0 and not ended:
            logprobs = (self._logprob(picked),)
        if not (text or calls or logprobs or finish):
            return None
        return ChoiceDelta(
            index=choice.index,
            text=text,
            tool_calls=calls,
            logprobs=logprobs,
            finish_reason=finish,
            stop=choice.text.stop,
        )

    def _logprob(self, picked: Picked) -> TokenLogprob:
        top = [self._vocabulary.logprob(token, value) for token, value in picked.top]
        return self._vocabulary.logprob(picked.token, picked.logprob, top)
