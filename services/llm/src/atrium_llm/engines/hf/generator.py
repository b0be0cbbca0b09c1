"""One loaded chat or completion model: from a job to its stream of events."""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument
from atrium_common.telemetry.tally import Tally
from atrium_common.work import DeviceThread
from atrium_llm.domain import (
    ChatInput,
    GenerationEvent,
    GenerationJob,
    PromptInput,
    Sampling,
    TextInput,
    ToolMode,
)
from atrium_llm.engines.hf.attention import BLOCK, IMPLEMENTATION, KeyValues, register
from atrium_llm.engines.hf.batch import PackedBatch
from atrium_llm.engines.hf.chat import Prompt, Prompter
from atrium_llm.engines.hf.loop import EngineLoop
from atrium_llm.engines.hf.options import GeneratorOptions, dtype_for
from atrium_llm.engines.hf.scheduler import Limits
from atrium_llm.engines.hf.sequence import Choice, Mailbox, Request
from atrium_llm.engines.hf.vocabulary import Vocabulary
from atrium_llm.sampling import Defaults, Draws, plan_sampling
from atrium_llm.stopping import TextStream
from atrium_llm.structured import Constraint, GrammarCompiler
from atrium_llm.tool_grammar import must_call
from atrium_llm.tools import ToolCallReader

ENGINE = "transformers"
_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


class Generator:
    """Generates with one model. Made in a thread (`load` blocks), used on the event loop.

    Attributes:
        context_length: Most tokens of prompt and answer together: the model's window or
            what its cache holds, whichever is less.
        failure: Why its engine thread died; ``""`` while it lives.
    """

    def __init__(
        self,
        entry: ModelEntry,
        options: GeneratorOptions,
        folder: Path,
        *,
        device: torch.device,
        events: asyncio.AbstractEventLoop,
        batches: Tally | None = None,
    ) -> None:
        """Loads the model and starts its engine thread. Blocks for seconds.

        Args:
            entry: Its catalogue entry.
            options: The entry's options.
            folder: Its files.
            device: Where it runs.
            events: The event loop that readers live on.
            batches: Counts the choices of each step.

        Raises:
            NotImplementedError: It is of a kind that this engine can't run.
        """
        self.failure = ""
        self._entry = entry
        self._device = device
        self._model = _load_model(folder, dtype_for(entry.dtype, device), device)
        tokenizer = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder))
        config = self._model.config.get_text_config()
        self._layers: int = config.num_hidden_layers
        self._prompter = Prompter(tokenizer, vocabulary=config.vocab_size)
        notation = self._prompter.notation
        self._vocabulary = Vocabulary(
            tokenizer,
            size=config.vocab_size,
            end_tokens=_end_tokens(self._model, tokenizer),
            markers=[notation.marker] if notation and notation.marker else [],
        )
        self._grammars = GrammarCompiler(self._vocabulary.grammar)
        self._defaults = _defaults(self._model, options)
        limits = self._limits(options)
        window = min(entry.context_length or 1 << 30, config.max_position_embeddings)
        self.context_length: int = min(window, limits.cache_tokens)
        self._numbers = itertools.count()
        self._preparing = DeviceThread(f"prepare-{entry.id}")
        self._loop = EngineLoop(
            self._forward,
            self._vocabulary,
            limits=limits,
            layers=self._layers,
            threads=options.threads,
            events=events,
            on_failure=self._fail,
            name=f"engine-{entry.id}",
            batches=batches,
        )
        self._loop.start()

    @property
    def running(self) -> int:
        """Choices that hold a slot or wait for one."""
        return self._loop.running

    @property
    def cache_tokens(self) -> int:
        """Tokens that caches have room for now; 0 when nothing runs."""
        return self._loop.cache_tokens

    def _fail(self, detail: str) -> None:
        self.failure = detail

    def close(self) -> None:
        """Stops the threads; what still runs fails as `Unavailable`. Blocks."""
        self._loop.stop(timeout=30.0)
        self._preparing.close()

    async def count_tokens(self, source: PromptInput) -> int:
        """Counts the tokens of a prompt as `generate` charges them."""
        return len((await self._preparing.call(self._prompter.prompt, source)).ids)

    async def generate(self, job: GenerationJob) -> AsyncGenerator[GenerationEvent, None]:
        """Streams a generation; closing it returns when the engine has let go of it.

        Raises:
            InvalidArgument: The job asks for what the model can't do.
            Unavailable: The model was stopped or has failed.
        """
        request = await self._preparing.call(self._request, job)
        self._loop.submit(request)
        try:
            while (event := await request.mailbox.get()) is not None:
                yield event
        finally:
            if not request.mailbox.ended:
                self._loop.cancel(request)
                await request.mailbox.drained()

    def _request(self, job: GenerationJob) -> Request:
        """Makes everything that a job needs before its first step. Blocks."""
        if job.echo and job.sampling.top_logprobs is not None:
            field = "job.echo"
            raise InvalidArgument(f"{field} can't be joined with top_logprobs.", field=field)
        prompt = self._prompter.prompt(job.input)
        request = Request(
            number=next(self._numbers),
            prompt=prompt.ids,
            plan=plan_sampling(job.sampling, self._defaults, vocabulary=self._vocabulary.size),
            limit=self._limit(prompt, job.sampling),
            echo=self._prompter.echo(job.input) if job.echo else "",
            usage=Usage(model=self._entry.id, model_digest=self._entry.digest, engine=ENGINE),
            mailbox=Mailbox(),
        )
        constraint = self._constraint(job)
        for index in range(job.sampling.n):
            request.choices.append(self._choice(request, index, job, constraint))
        request.forks = request.choices[1:]
        return request

    def _choice(
        self, request: Request, index: int, job: GenerationJob, constraint: Constraint | None
    ) -> Choice:
        return Choice(
            request=request,
            index=index,
            tokens=list(request.prompt),
            cache=KeyValues(self._layers),
            draws=Draws(job.sampling.seed, index),
            text=TextStream(job.sampling.stop),
            constraint=constraint.fork() if constraint is not None else None,
            tools=self._tool_reader(job),
        )

    def _limit(self, prompt: Prompt, sampling: Sampling) -> int:
        """Bounds the answer by the window; a prompt that fills it is refused."""
        length, window = len(prompt.ids), self.context_length
        if length >= window:
            raise InvalidArgument(
                f"{prompt.field} has {length} tokens; the model reads and writes at most {window}.",
                reason="CONTEXT_LENGTH_EXCEEDED",
                field=prompt.field,
            )
        return min(sampling.max_tokens or window, window - length)

    def _constraint(self, job: GenerationJob) -> Constraint | None:
        chat = job.input
        if isinstance(chat, ChatInput) and must_call(chat):
            notation = self._prompter.notation
            if notation is None:
                field = "job.chat.tool_choice"
                raise InvalidArgument(f"{field} is not supported by this model.", field=field)
            return self._grammars.for_tool_calls(chat, notation)
        if job.response_format is not None:
            return self._grammars.for_format(job.response_format)
        return None

    def _tool_reader(self, job: GenerationJob) -> ToolCallReader | None:
        chat, notation = job.input, self._prompter.notation
        if not isinstance(chat, ChatInput) or not chat.tools or chat.tool_mode is ToolMode.NONE:
            return None
        if notation is None:
            return None
        names = [tool.name for tool in chat.tools]
        return ToolCallReader(notation, names, parallel=chat.parallel_tool_calls)

    async def verify(self) -> None:
        """Runs one token; raises if the model can't answer."""
        sampling = Sampling(max_tokens=1, temperature=0.0)
        job = GenerationJob(model=self._entry.id, input=TextInput("Hello"), sampling=sampling)
        async for _ in self.generate(job):
            pass

    def _limits(self, options: GeneratorOptions) -> Limits:
        on_cpu = self._device.type == "cpu"
        tokens = _cache_bytes(options, self._device) // _bytes_per_token(self._model)
        return Limits(
            slots=options.slots,
            cache_tokens=max(tokens // BLOCK, 2) * BLOCK,
            prompt_chunk=options.prompt_chunk or (64 if on_cpu else 512),
            prompt_chunk_alone=options.prompt_chunk_alone or (256 if on_cpu else 4096),
        )

    def _forward(self, batch: PackedBatch) -> Tensor:
        answer = self._model(
            input_ids=torch.tensor([batch.ids], device=self._device),
            position_ids=torch.tensor([batch.positions], device=self._device),
            use_cache=False,
            logits_to_keep=torch.tensor(batch.wanted, dtype=torch.long, device=self._device),
            segments=batch.segments,
        )
        logits: Tensor = answer.logits[0].float()
        return logits


def _load_model(folder: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    register()
    config = AutoConfig.from_pretrained(folder)
    layers = getattr(config.get_text_config(), "layer_types", None) or []
    if not set(layers) <= _KNOWN_LAYERS:
        unknown = ", ".join(sorted(set(layers) - _KNOWN_LAYERS))
        raise NotImplementedError(f"layers of the kind {unknown}")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=IMPLEMENTATION, local_files_only=True
    )
    model.to(device)  # type: ignore[arg-type]
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> set[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in (*ends, tokenizer.eos_token_id) if token is not None}


def _defaults(model: PreTrainedModel, options: GeneratorOptions) -> Defaults:
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    given = {name: getattr(model.generation_config, name, None) for name in names}
    if options.default_temperature is not None:
        given["temperature"] = options.default_temperature
    if options.default_top_p is not None:
        given["top_p"] = options.default_top_p
    return Defaults(**{name: value for name, value in given.items() if value is not None})


def _bytes_per_token(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    heads: int = config.num_attention_heads
    dim: int = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads: int = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kv_heads * dim * model.dtype.itemsize)


def _cache_bytes(options: GeneratorOptions, device: torch.device) -> int:
    if options.kv_cache_mib is not None:
        return options.kv_cache_mib << 20
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 2)
    return 1 << 30
