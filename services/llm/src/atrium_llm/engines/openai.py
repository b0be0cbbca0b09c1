"""Models of any OpenAI-compatible server: OpenAI, OpenRouter, Ollama, TGI, vLLM, Atrium.

An outside provider is an engine like every other, so that queue, limits and ledger
treat its models like our own. The catalogue names where the key is, never the key.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import openai

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, Usage
from atrium_common.errors import AtriumError, Unimplemented
from atrium_common.openai_upstream import broken
from atrium_common.provider_engine import ProviderEngine
from atrium_llm.domain import (
    ChatInput,
    ChatMessage,
    EmbeddingJob,
    EmbeddingResult,
    GenerationEvent,
    GenerationJob,
    PromptInput,
    RerankJob,
    RerankResult,
    Role,
    Sampling,
    TextInput,
    TextPart,
    TokenInput,
)
from atrium_llm.engines.openai_errors import from_openai_error
from atrium_llm.engines.openai_options import OpenAiOptions
from atrium_llm.engines.openai_request import (
    chat_arguments,
    completion_arguments,
    embedding_arguments,
)
from atrium_llm.engines.openai_stream import StreamReader

_BYTES_PER_TOKEN = 3
"""English has about four bytes per token, Chinese about three per character and token:
dividing by three errs on the high side for ordinary text."""

_MESSAGE_TOKENS = 8
_IMAGE_TOKENS = 1000
"""About what providers make of a picture of a megapixel."""


class OpenAiEngine(ProviderEngine[OpenAiOptions]):
    """Passes jobs on to providers.

    Until the provider has told what it counted, at the end of its stream, usage is
    our own estimate and flagged so: that is what a caller who leaves early is charged.
    """

    options_type = OpenAiOptions

    async def verify(self, model: str) -> None:
        """Asks the provider for one token, or for one vector."""
        entry = self.entry(model)
        if Capability.EMBEDDING in entry.capabilities:
            await self.embed(EmbeddingJob(model=model, inputs=[TextInput("a")]))
            return
        prompt: PromptInput = TextInput("a")
        if Capability.CHAT in entry.capabilities:
            prompt = ChatInput(messages=[ChatMessage(role=Role.USER, content=[TextPart("a")])])
        job = GenerationJob(model=model, input=prompt, sampling=Sampling(max_tokens=1))
        async for _ in self.generate(job):
            pass

    async def generate(self, job: GenerationJob) -> AsyncGenerator[GenerationEvent, None]:
        """Streams the provider's answer; closing it closes the connection."""
        entry = self._able(job.model, Capability.CHAT, Capability.COMPLETION)
        reader = StreamReader()
        try:
            async with await self._open(job) as stream:
                yield self._event(entry, job, reader)
                async for chunk in stream:
                    deltas = (
                        reader.read_chat(chunk)
                        if isinstance(job.input, ChatInput)
                        else reader.read_completion(chunk)
                    )
                    if deltas:
                        yield self._event(entry, job, reader, deltas)
        except openai.OpenAIError as error:
            raise self._ours(error, job.model) from error
        except (ValueError, TypeError, AttributeError) as error:
            # The client library hands a chunk that is no JSON, or of another shape, on.
            raise broken(job.model) from error
        if not reader.complete:
            raise broken(job.model)
        yield self._event(entry, job, reader)

    async def _open(self, job: GenerationJob) -> "openai.AsyncStream[Any]":
        options = self.options(job.model)
        client = self.client(job.model)
        common: dict[str, Any] = {"model": options.model or job.model, "stream": True}
        if options.reports_usage:
            common["stream_options"] = {"include_usage": True}
        if isinstance(job.input, ChatInput):
            arguments = chat_arguments(
                job, job.input, token_limit=options.token_limit, extensions=options.extensions
            )
            opened = await client.chat.completions.create(**common, **cast(Any, arguments))
        else:
            arguments = completion_arguments(job, extensions=options.extensions)
            opened = await client.completions.create(**common, **cast(Any, arguments))
        return cast("openai.AsyncStream[Any]", opened)

    def _event(
        self,
        entry: ModelEntry,
        job: GenerationJob,
        reader: StreamReader,
        deltas: Sequence[Any] = (),
    ) -> GenerationEvent:
        counted = reader.usage
        if counted is None:
            usage = Usage(
                model=entry.id,
                engine=self.name,
                input_tokens=estimated_tokens(job.input),
                output_tokens=math.ceil(reader.written / _BYTES_PER_TOKEN),
                estimated=True,
            )
        else:
            details = counted.prompt_tokens_details
            usage = Usage(
                model=entry.id,
                engine=self.name,
                input_tokens=counted.prompt_tokens or 0,
                output_tokens=counted.completion_tokens or 0,
                cached_input_tokens=(details.cached_tokens or 0) if details else 0,
            )
        return GenerationEvent(deltas=deltas, usage=usage)

    async def embed(self, job: EmbeddingJob) -> EmbeddingResult:
        """Embeds at the provider; vectors are made unit length."""
        entry = self._able(job.model, Capability.EMBEDDING)
        name = self.options(job.model).model or job.model
        arguments = cast(Any, embedding_arguments(job))
        try:
            reply = await self.client(job.model).embeddings.create(model=name, **arguments)
            vectors = [_unit(item.embedding) for item in sorted(reply.data, key=lambda i: i.index)]
        except openai.OpenAIError as error:
            raise self._ours(error, job.model) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise broken(job.model) from error
        if len(vectors) != len(job.inputs):
            raise broken(job.model)
        counted = reply.usage.prompt_tokens if reply.usage else None
        guess = sum(estimated_tokens(item) for item in job.inputs)
        usage = Usage(
            model=entry.id,
            engine=self.name,
            input_tokens=guess if counted is None else counted,
            estimated=counted is None,
        )
        return EmbeddingResult(vectors=vectors, usage=usage)

    async def rerank(self, job: RerankJob) -> RerankResult:
        """Raises: OpenAI's API has no ranking."""
        self.entry(job.model)
        raise Unimplemented("An OpenAI-compatible provider offers no ranking.")

    async def count_tokens(self, model: str, prompt: PromptInput) -> int:
        """Raises: OpenAI's API counts no tokens, and an estimate is no count."""
        self.entry(model)
        raise Unimplemented("An OpenAI-compatible provider does not count tokens.")

    def _able(self, model: str, *capabilities: Capability) -> ModelEntry:
        entry = self.entry(model)
        if not set(capabilities) & set(entry.capabilities):
            raise Unimplemented(f"The model {model!r} does not offer {capabilities[0]}.")
        return entry

    def _ours(self, error: openai.OpenAIError, model: str) -> AtriumError:
        return from_openai_error(error, model=model, secret=self.client(model).api_key)


def estimated_tokens(prompt: PromptInput) -> int:
    """Estimates the tokens of a prompt, on the high side for ordinary text."""
    if isinstance(prompt, TokenInput):
        return len(prompt.ids)
    if isinstance(prompt, TextInput):
        return math.ceil(len(prompt.text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN)
    parts = [part for message in prompt.messages for part in message.content]
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    images = _IMAGE_TOKENS * (len(parts) - len(texts))
    return _MESSAGE_TOKENS * len(prompt.messages) + images + math.ceil(size / _BYTES_PER_TOKEN)


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(math.fsum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]
