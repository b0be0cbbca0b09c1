"""Chunks of an OpenAI-compatible server as texts; `engines/openai.py` reads with these.

The client library builds its types without checking them, so everything here takes a
field that is missing or null for one that says nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceLogprobs

from atrium_common.errors import InvalidArgument
from atrium_img2text.domain import Counts, FinishReason
from atrium_img2text.engines.openai_request import text_tokens

_REASONS = {"length": FinishReason.LENGTH}


@dataclass(slots=True)
class Text:
    """One text of an answer, as far as it has come.

    Attributes:
        text: What was said.
        finish_reason: Why it ended, once it has.
        logprob: Sum of the log probabilities that were told.
        tokens: How many were told.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    logprob: float = 0.0
    tokens: int = 0

    @property
    def average_logprob(self) -> float:
        """Mean log probability of a token; 0 where none was told."""
        return self.logprob / self.tokens if self.tokens else 0.0


class StreamReader:
    """Reads the chunks of one answer, in order.

    Attributes:
        texts: What was said so far, by index.
    """

    def __init__(self, model: str, *, guess: int, clock: Callable[[], float]) -> None:
        """Begins to measure.

        Args:
            model: Catalogue id, for messages.
            guess: Tokens read, until the provider tells.
            clock: Seconds.
        """
        self.texts: dict[int, Text] = {}
        self._model = model
        self._guess = guess
        self._clock = clock
        self._began = clock()
        self._usage: CompletionUsage | None = None
        self._written = 0

    @property
    def counts(self) -> Counts:
        """What the provider counted; our guess, flagged so, until it says so."""
        inference = timedelta(seconds=self._clock() - self._began)
        if self._usage is None:
            return Counts(
                input_tokens=self._guess,
                output_tokens=text_tokens(self._written),
                inference=inference,
                estimated=True,
            )
        return Counts(
            input_tokens=self._usage.prompt_tokens or 0,
            output_tokens=self._usage.completion_tokens or 0,
            inference=inference,
        )

    @property
    def complete(self) -> bool:
        """True once every text that was begun has ended."""
        return bool(self.texts) and all(text.finish_reason for text in self.texts.values())

    def read(self, chunk: ChatCompletionChunk) -> str:
        """Takes a chunk and returns what is new in its texts.

        Raises:
            InvalidArgument: The provider's filter ended a text.
        """
        self._usage = chunk.usage or self._usage
        news = ""
        for choice in chunk.choices or ():
            text = self.texts.setdefault(choice.index or 0, Text())
            # A refusal is what the model says instead of content.
            new = (choice.delta.content or choice.delta.refusal or "") if choice.delta else ""
            text.text += new
            news += new
            self._take_logprobs(text, choice.logprobs)
            if choice.finish_reason == "content_filter":
                raise InvalidArgument(
                    f"The provider of {self._model!r} filtered its answer.",
                    reason="CONTENT_FILTERED",
                )
            if choice.finish_reason is not None:
                # A reason that this version does not know still ends the text.
                text.finish_reason = _REASONS.get(choice.finish_reason, FinishReason.STOP)
        self._written += len(news.encode("utf-8", "replace"))
        return news

    @staticmethod
    def _take_logprobs(text: Text, told: ChoiceLogprobs | None) -> None:
        for token in (told.content if told else None) or ():
            text.logprob += token.logprob
            text.tokens += 1
