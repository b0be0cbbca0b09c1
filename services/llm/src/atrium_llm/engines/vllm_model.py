"""One model in one `AsyncLLM`: prompts in, deltas out. `engines/vllm.py` keeps these.

Imports vLLM, which takes seconds, so it is imported when the model is loaded.
"""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import cast

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMError
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument, Unavailable, Unimplemented
from atrium_llm.domain import (
    ChatInput,
    ChoiceDelta,
    FinishReason,
    GenerationEvent,
    GenerationJob,
    PromptInput,
    TokenLogprob,
    ToolMode,
)
from atrium_llm.engines.hf.chat import Prompt, Prompter
from atrium_llm.engines.hf.vocabulary import Vocabulary
from atrium_llm.engines.vllm_options import SET_BY_ATRIUM, VllmOptions
from atrium_llm.engines.vllm_request import from_vllm_error, sampling_params, seed_for
from atrium_llm.tools import HERMES, LLAMA3, MISTRAL, ToolCallReader, ToolNotation

_NOTATIONS = {"hermes": HERMES, "mistral": MISTRAL, "llama3": LLAMA3, "none": None}
_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class _Prompter(Prompter):
    """A prompter whose tool notation the catalogue may state."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, *, vocabulary: int, notation: str
    ) -> None:
        super().__init__(tokenizer, vocabulary=vocabulary)
        self._stated = notation

    @property
    def notation(self) -> ToolNotation | None:
        """What the catalogue states, else what the chat template teaches."""
        return super().notation if self._stated == "auto" else _NOTATIONS[self._stated]


class VllmModel:
    """A loaded model.

    Attributes:
        window: Most tokens of prompt and answer together.
        running: Generations that are open now.
    """

    def __init__(self, entry: ModelEntry, options: VllmOptions, folder: Path) -> None:
        """Starts vLLM's engine process and waits until it is ready. Blocks for long.

        Raises:
            CatalogueError: An option is none of vLLM's.
        """
        self.entry = entry
        self.engine = AsyncLLM.from_engine_args(_arguments(entry, options, folder))
        config = self.engine.model_config
        self.window = int(config.max_model_len)
        self.running = 0
        self._defaults = config.get_diff_sampling_param()
        tokenizer = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder))
        self._tokenizer = tokenizer
        size = config.get_vocab_size()
        self._prompter = _Prompter(tokenizer, vocabulary=size, notation=options.tool_notation)
        self._notation = self._prompter.notation
        # A model that only pools needs no grammars and may have no end token.
        self._vocabulary = (
            Vocabulary(tokenizer, size=size, end_tokens=[tokenizer.eos_token_id])
            if config.runner_type == "generate"
            else None
        )
        # A tokenizer of the tokenizers library must not be used by two threads at once.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")

    def close(self) -> None:
        """Ends the engine process. Blocks.

        vLLM closes its sockets on the event loop and leaves their zmq context to the garbage
        collector, which says so as a ResourceWarning ("Unclosed context"). That is harmless:
        whoever unloads a model collects garbage right after. To destroy it here would close
        sockets under the loop.
        """
        self._tokenizing.shutdown(wait=False)
        self.engine.shutdown()

    async def prompt(self, source: PromptInput) -> Prompt:
        """Renders and tokenizes a prompt, off the event loop.

        Raises:
            InvalidArgument: The model can't read it.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenizing, self._prompter.prompt, source)

    async def pair(self, query: str, document: str) -> tuple[list[int], list[int]]:
        """Tokenizes a query and a document for a cross-encoder.

        Returns:
            Token ids, and the segment of each; no segments if the model has none.
        """
        loop = asyncio.get_running_loop()
        both = await loop.run_in_executor(self._tokenizing, self._tokenizer, query, document)
        return list(both["input_ids"]), list(both.get("token_type_ids") or ())

    async def generate(self, job: GenerationJob) -> AsyncGenerator[GenerationEvent, None]:
        """Streams a generation; closing it aborts the request in the engine."""
        prompt = await self.prompt(job.input)
        room = self.window - len(prompt.ids)
        if room < 1:
            raise _too_long(len(prompt.ids), self.window, prompt.field)
        if self._vocabulary is None:
            raise Unimplemented(f"The model {job.model!r} only embeds.")
        _check_bias(job, self._vocabulary.size)
        answer = _Answer(job, self._notation, self._vocabulary)
        params = sampling_params(
            job,
            room=room,
            defaults=self._defaults,
            notation=self._notation,
            seed=seed_for(job.sampling),
        )
        self.running += 1
        try:
            stream = self.engine.generate(
                {"prompt_token_ids": list(prompt.ids)}, params, uuid.uuid4().hex
            )
            async with aclosing(stream) as outputs:
                begun = False
                async for output in outputs:
                    if not begun:
                        begun = True
                        for event in self._opening(job, output, len(prompt.ids)):
                            yield event
                    deltas = [delta for one in output.outputs if (delta := answer.read(one))]
                    yield GenerationEvent(
                        deltas=deltas,
                        usage=self.usage(len(prompt.ids), answer.tokens, output.num_cached_tokens),
                    )
                    if answer.complete:
                        break
        except (VLLMError, ValueError) as error:
            ours = from_vllm_error(error, job)
            if ours is None:
                raise
            raise ours from error
        finally:
            self.running -= 1

    def _opening(
        self, job: GenerationJob, output: RequestOutput, read: int
    ) -> Sequence[GenerationEvent]:
        """Makes what stands before the answer: the usage after prefill, and the echo."""
        usage = self.usage(read, 0, output.num_cached_tokens)
        events = [GenerationEvent(usage=usage)]
        if job.echo:
            text = self._prompter.echo(job.input)
            deltas = [ChoiceDelta(index=index, text=text) for index in range(job.sampling.n)]
            events.append(GenerationEvent(deltas=deltas, usage=usage))
        return events

    def usage(self, read: int, written: int, cached: int | None = None) -> Usage:
        """Makes the usage of a request of this model."""
        return Usage(
            model=self.entry.id,
            model_digest=self.entry.digest,
            engine="vllm",
            input_tokens=read,
            output_tokens=written,
            cached_input_tokens=cached or 0,
        )


class _Answer:
    """The choices of one generation as they come in.

    Attributes:
        tokens: Token ids generated so far, over all choices. A delta is not a token.
    """

    def __init__(
        self, job: GenerationJob, notation: ToolNotation | None, vocabulary: Vocabulary
    ) -> None:
        self.tokens = 0
        self._vocabulary = vocabulary
        self._top = job.sampling.top_logprobs
        self._ended: set[int] = set()
        self._choices = job.sampling.n
        self._readers: list[ToolCallReader | None] = [None] * job.sampling.n
        chat = job.input
        if isinstance(chat, ChatInput) and chat.tools and chat.tool_mode is not ToolMode.NONE:
            names = [tool.name for tool in chat.tools if chat.tool_name in (None, tool.name)]
            if notation is not None:
                self._readers = [
                    ToolCallReader(notation, names, parallel=chat.parallel_tool_calls)
                    for _ in range(job.sampling.n)
                ]

    @property
    def complete(self) -> bool:
        """True once every choice has ended; the engine may still be running."""
        return len(self._ended) == self._choices

    def read(self, output: CompletionOutput) -> ChoiceDelta | None:
        """Makes the delta of one choice; ``None`` if it has ended or nothing is new."""
        if output.index in self._ended:
            return None
        self.tokens += len(output.token_ids)
        if output.finish_reason is not None and output.finish_reason not in _REASONS:
            raise Unavailable("The engine broke the answer off.")
        text, calls = output.text, ()
        reason = _REASONS.get(output.finish_reason or "")
        reader = self._readers[output.index]
        if reader is not None:
            text, calls = reader.push(output.text, last=reason is not None)
            if reader.complete or (reader.called and reason is FinishReason.STOP):
                reason = FinishReason.TOOL_CALLS
        if reason is not None:
            self._ended.add(output.index)
        logprobs = self._logprobs(output)
        if not (text or calls or logprobs or reason):
            return None
        return ChoiceDelta(
            index=output.index,
            text=text,
            tool_calls=calls,
            logprobs=logprobs,
            finish_reason=reason,
            stop=output.stop_reason
            if reason is FinishReason.STOP and isinstance(output.stop_reason, str)
            else None,
        )

    def _logprobs(self, output: CompletionOutput) -> tuple[TokenLogprob, ...]:
        if self._top is None or not output.logprobs:
            return ()
        made = []
        for token, places in zip(output.token_ids, output.logprobs, strict=True):
            ranked = sorted(places.items(), key=lambda item: item[1].rank or 0)
            top = [self._vocabulary.logprob(other, place.logprob) for other, place in ranked]
            made.append(self._vocabulary.logprob(token, places[token].logprob, top[: self._top]))
        return tuple(made)


def _arguments(entry: ModelEntry, options: VllmOptions, folder: Path) -> AsyncEngineArgs:
    wanted = options.engine_arguments()
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)} - SET_BY_ATRIUM
    for name in wanted:
        if name not in known:
            raise CatalogueError(f"{entry.id}: options.{name}: vLLM has no such argument to set")
    defaults: dict[str, object] = {
        "dtype": entry.dtype or "auto",
        "max_model_len": entry.context_length,
        "enable_log_requests": False,
        "disable_log_stats": True,
        # Guidance reads the grammars of tool calls; without its whitespace rule a small
        # model may write blanks up to its limit.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
    }
    return AsyncEngineArgs(**{"model": str(folder), **defaults, **wanted})


def _check_bias(job: GenerationJob, vocabulary: int) -> None:
    for token in job.sampling.logit_bias:
        if token >= vocabulary:
            field = f"job.sampling.logit_bias[{token}]"
            raise InvalidArgument(f"{field} is an unknown token.", field=field)


def _too_long(count: int, window: int, field: str) -> InvalidArgument:
    return InvalidArgument(
        f"The prompt has {count} tokens; the model's window is {window}.",
        reason="CONTEXT_LENGTH_EXCEEDED",
        field=field,
    )
