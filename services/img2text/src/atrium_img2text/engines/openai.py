"""Models that see of any OpenAI-compatible server: OpenAI, OpenRouter, Ollama, TGI, vLLM.

An outside provider is an engine like every other, so that queue, limits and ledger treat
its models like our own. A picture goes as a data URL in a chat completion; a description
is the answer to the option `caption_prompt`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import fields
from time import monotonic
from typing import Any, cast

import numpy as np
import openai

from atrium_common.catalogue import ModelEntry
from atrium_common.lifecycle import Lifecycle
from atrium_common.openai_upstream import broken, from_openai_error
from atrium_common.provider_engine import ProviderEngine
from atrium_common.weights import WeightStore
from atrium_img2text.domain import (
    AnswerEvent,
    Caption,
    DescriptionEvent,
    DescriptionJob,
    DescriptionOrder,
    QuestionJob,
    QuestionOrder,
    TextSampling,
)
from atrium_img2text.engines.openai_options import OpenAIVisionOptions
from atrium_img2text.engines.openai_request import (
    check_sampling,
    data_url,
    description_arguments,
    description_tokens,
    question_arguments,
    question_tokens,
)
from atrium_img2text.engines.openai_stream import StreamReader

_SMALLEST_PICTURE = 32
"""Side of the picture that a verification shows."""


class OpenAIEngine(ProviderEngine[OpenAIVisionOptions]):
    """Passes jobs on to providers.

    Until the provider has told what it counted, at the end of its stream, tokens are our own
    guess and flagged so: that is what a caller who leaves early is charged.
    """

    options_type = OpenAIVisionOptions

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore | None = None,
        lifecycle: Lifecycle | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Takes the catalogue's entries; there are no weights, so the rest is unused.

        Raises:
            CatalogueError: An option of a model does not hold.
        """
        super().__init__(entries, store=store, lifecycle=lifecycle)
        self._clock = clock

    async def verify(self, model: str) -> None:
        """Asks the provider for one token about a small grey picture."""
        side = _SMALLEST_PICTURE
        order = DescriptionOrder(model=model, sampling=TextSampling(max_tokens=1))
        pixels = np.full((side, side, 3), 128, np.uint8)
        async with aclosing(self.describe(DescriptionJob(order=order, pixels=pixels))) as events:
            async for _ in events:
                pass

    def check_description(self, order: DescriptionOrder) -> None:
        """Refuses what the provider would never hear of."""
        self._check(order.model, order.sampling)

    def check_question(self, order: QuestionOrder) -> None:
        """Refuses what the provider would never hear of."""
        self._check(order.model, order.sampling)

    def _check(self, model: str, sampling: TextSampling) -> None:
        self.entry(model)
        self.client(model)
        check_sampling(model, sampling)

    async def describe(self, job: DescriptionJob) -> AsyncGenerator[DescriptionEvent, None]:
        """Asks for descriptions; closing it closes the connection."""
        order = job.order
        self.check_description(order)
        options = self.options(order.model)
        image = await asyncio.to_thread(data_url, job.pixels, options)
        reader = self._reader(order.model, description_tokens(order, options))
        arguments = description_arguments(order, image, options)
        async with aclosing(self._streamed(order.model, arguments, reader, order.n)) as pieces:
            async for _ in pieces:
                yield DescriptionEvent(counts=reader.counts)
        yield DescriptionEvent(counts=reader.counts, captions=_captions(reader, order))

    async def answer(self, job: QuestionJob) -> AsyncGenerator[AnswerEvent, None]:
        """Streams the provider's answer; closing it closes the connection."""
        order = job.order
        self.check_question(order)
        options = self.options(order.model)
        image = await asyncio.to_thread(data_url, job.pixels, options)
        reader = self._reader(order.model, question_tokens(order, options))
        arguments = question_arguments(order, image, options)
        async with aclosing(self._streamed(order.model, arguments, reader, 1)) as pieces:
            async for text in pieces:
                yield AnswerEvent(counts=reader.counts, text=text)
        (said,) = reader.texts.values()
        yield AnswerEvent(counts=reader.counts, finish_reason=said.finish_reason)

    def _reader(self, model: str, guess: int) -> StreamReader:
        return StreamReader(model, guess=guess, clock=self._clock)

    async def _streamed(
        self, model: str, arguments: dict[str, object], reader: StreamReader, n: int
    ) -> AsyncGenerator[str, None]:
        """Gives what is new: nothing at first, once the provider has begun its answer.

        Args:
            model: Catalogue id.
            arguments: Of the chat completion, but for the model's name.
            reader: Takes in what comes.
            n: Texts that must come.

        Raises:
            AtriumError: The provider refused, failed, or broke off.
        """
        with self._translated(model):
            async with await self._open(model, arguments) as stream:
                yield ""
                async for chunk in stream:
                    if new := reader.read(chunk):
                        yield new
        if not reader.complete or len(reader.texts) != n:
            raise broken(model)

    async def _open(self, model: str, arguments: dict[str, object]) -> "openai.AsyncStream[Any]":
        options = self.options(model)
        common: dict[str, Any] = {"model": options.model or model, "stream": True}
        if options.reports_usage:
            common["stream_options"] = {"include_usage": True}
        opened = await self.client(model).chat.completions.create(**common, **cast(Any, arguments))
        return cast("openai.AsyncStream[Any]", opened)

    @contextmanager
    def _translated(self, model: str) -> Iterator[None]:
        """Turns the client library's errors into ours."""
        secret = self.client(model).api_key
        try:
            yield
        except openai.OpenAIError as error:
            raise from_openai_error(
                error, model=model, secret=secret, field_of=_our_field
            ) from error
        except (ValueError, TypeError, AttributeError) as error:
            # The client library hands a chunk that is no JSON, or of another shape, on.
            raise broken(model) from error


def _captions(reader: StreamReader, order: DescriptionOrder) -> Sequence[Caption]:
    """Returns the captions, the likeliest first as far as the provider tells."""
    texts = [reader.texts[index] for index in sorted(reader.texts)]
    texts.sort(key=lambda text: -text.average_logprob)
    return tuple(
        Caption(
            index=index,
            text=text.text.strip().removeprefix(order.prefix.strip()).strip(),
            average_logprob=text.average_logprob,
        )
        for index, text in enumerate(texts)
    )


def _our_field(param: str) -> str | None:
    """Finds our field behind the provider's name for it; ``None`` if it is not plain."""
    if param == "n":
        return "n"
    names = {field.name for field in fields(TextSampling)}
    return f"sampling.{param}" if param in names else None
