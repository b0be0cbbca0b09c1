"""One loaded embedding model: mean (or first, or last) token, unit length, in batches.

It has a device thread of its own, so that generation is not held up; a job gives the
thread back after every batch, so that a large job does not hold up small ones.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument
from atrium_common.work import DeviceThread
from atrium_llm.domain import (
    EmbeddingJob,
    EmbeddingResult,
    RankedDocument,
    RerankJob,
    RerankResult,
    TextInput,
    TokenInput,
)
from atrium_llm.engines.hf.options import EmbedderOptions, dtype_for

ENGINE = "transformers"

Pooling = Callable[[Tensor, Tensor], Tensor]
"""Makes one vector per text of ``[texts, tokens, dim]`` and the mask ``[texts, tokens]``."""


class Embedder:
    """Embeds with one model. Made in a thread (`load` blocks), used on the event loop.

    Attributes:
        context_length: Most tokens of one input.
        dimensions: Values of a vector.
        failure: Always ``""``: it has no thread that a bad batch could end.
    """

    failure = ""

    def __init__(
        self, entry: ModelEntry, options: EmbedderOptions, folder: Path, *, device: torch.device
    ) -> None:
        """Loads the model. Blocks for a second or more."""
        self._entry = entry
        self._options = options
        self._device = device
        dtype = dtype_for(entry.dtype, device)
        model: PreTrainedModel = AutoModel.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )
        self._model = model.to(device).eval()  # type: ignore[arg-type]
        self._tokenizer = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder))
        self._pool = _pooling(folder)
        window = getattr(model.config, "max_position_embeddings", 512)
        self.context_length: int = min(entry.context_length or window, window)
        self.dimensions: int = model.config.hidden_size
        self._thread = DeviceThread(f"embed-{entry.id}")

    def close(self) -> None:
        """Stops the thread. Blocks until its present batch ends."""
        self._thread.close()

    async def count_tokens(self, text: TextInput | TokenInput) -> int:
        """Counts the tokens of an input as `embed` charges them, before any cut."""
        return len((await self._thread.call(self._tokenize, [text]))[0])

    async def embed(self, job: EmbeddingJob) -> EmbeddingResult:
        """Embeds texts.

        Raises:
            InvalidArgument: An input is empty, too long or names an unknown token, or
                the model's vectors can't be cut to `dimensions`.
        """
        self._check_dimensions(job.dimensions)
        arrived = time.monotonic()
        tokens = await self._thread.call(self._tokenize, job.inputs)
        tokens = [self._fit(ids, index, job.truncate) for index, ids in enumerate(tokens)]
        begun = time.monotonic()
        vectors = await self._vectors(tokens, job.dimensions)
        ended = time.monotonic()
        usage = Usage(
            model=self._entry.id,
            model_digest=self._entry.digest,
            engine=ENGINE,
            queue_time=timedelta(seconds=begun - arrived),
            inference_time=timedelta(seconds=ended - begun),
            input_tokens=sum(len(ids) for ids in tokens),
        )
        return EmbeddingResult(vectors=vectors, usage=usage)

    async def rerank(self, job: RerankJob) -> RerankResult:
        """Orders documents by the cosine of their vectors and the query's."""
        texts = [TextInput(text) for text in (job.query, *job.documents)]
        embedded = await self.embed(EmbeddingJob(model=job.model, inputs=texts, truncate=True))
        query, *documents = embedded.vectors
        scored = [
            RankedDocument(index, sum(a * b for a, b in zip(query, vector, strict=True)))
            for index, vector in enumerate(documents)
        ]
        scored.sort(key=lambda document: -document.score)
        return RerankResult(results=scored[: job.top_n], usage=embedded.usage)

    async def verify(self) -> None:
        """Embeds one word; raises if the model can't answer."""
        await self.embed(EmbeddingJob(model=self._entry.id, inputs=[TextInput("hello")]))

    def _check_dimensions(self, dimensions: int | None) -> None:
        if dimensions is None or dimensions == self.dimensions:
            return
        if not self._options.matryoshka:
            raise InvalidArgument(
                f"dimensions: this model's vectors have {self.dimensions} values and "
                "were not trained to be cut.",
                field="dimensions",
            )
        if dimensions > self.dimensions:
            raise InvalidArgument(
                f"dimensions must be at most {self.dimensions}.", field="dimensions"
            )

    def _tokenize(self, inputs: Sequence[TextInput | TokenInput]) -> list[list[int]]:
        tokens: list[list[int]] = []
        for index, item in enumerate(inputs):
            if isinstance(item, TextInput):
                tokens.append(list(self._tokenizer(item.text, verbose=False)["input_ids"]))
                continue
            if any(not 0 <= token < len(self._tokenizer) for token in item.ids):
                field = f"inputs[{index}].ids"
                raise InvalidArgument(f"{field} names an unknown token.", field=field)
            tokens.append(list(item.ids))
        return tokens

    def _fit(self, ids: list[int], index: int, truncate: bool) -> list[int]:
        field = f"inputs[{index}]"
        if not ids:
            raise InvalidArgument(f"{field} must not be empty.", field=field)
        window = self.context_length
        if len(ids) <= window:
            return ids
        if not truncate:
            raise InvalidArgument(
                f"{field} has {len(ids)} tokens; the model reads at most {window}. "
                "Set truncate to cut it.",
                reason="CONTEXT_LENGTH_EXCEEDED",
                field=field,
            )
        # The closing token of the sequence stays, as the model was trained with it.
        special = ids[-1] in self._tokenizer.all_special_ids
        return [*ids[: window - 1], ids[-1]] if special else ids[:window]

    async def _vectors(
        self, tokens: Sequence[list[int]], dimensions: int | None
    ) -> list[list[float]]:
        vectors: list[list[float]] = [[] for _ in tokens]
        for batch in self._batches(tokens):
            made = await self._thread.call(self._forward, [tokens[i] for i in batch], dimensions)
            for index, vector in zip(batch, made, strict=True):
                vectors[index] = vector
            await asyncio.sleep(0)
        return vectors

    def _batches(self, tokens: Sequence[list[int]]) -> list[list[int]]:
        """Groups inputs of similar length, so that little is padded."""
        batches: list[list[int]] = []
        for index in sorted(range(len(tokens)), key=lambda i: len(tokens[i])):
            last = batches[-1] if batches else None
            if last is None or (len(last) + 1) * len(tokens[index]) > self._options.batch_tokens:
                batches.append([index])
            else:
                last.append(index)
        return batches

    def _forward(self, batch: Sequence[list[int]], dimensions: int | None) -> list[list[float]]:
        torch.set_num_threads(self._options.threads)
        longest = max(len(ids) for ids in batch)
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [padding] * (longest - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            pooled = self._pool(hidden.float(), mask)[:, :dimensions]
            vectors: list[list[float]] = F.normalize(pooled, dim=-1).tolist()
        return vectors


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    del mask
    return hidden[:, 0]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]


def _pooling(folder: Path) -> Pooling:
    """Reads how a sentence-transformers model pools; a model that says nothing is averaged."""
    config = folder / "1_Pooling" / "config.json"
    if not config.is_file():
        return _mean
    modes: dict[str, object] = json.loads(config.read_text(encoding="utf-8"))
    known: dict[str, Pooling] = {
        "pooling_mode_mean_tokens": _mean,
        "pooling_mode_cls_token": _first,
        "pooling_mode_lasttoken": _last,
    }
    chosen = [key for key, on in modes.items() if key.startswith("pooling_mode_") and on is True]
    if len(chosen) != 1 or chosen[0] not in known:
        raise NotImplementedError(f"pooling by {', '.join(chosen) or 'nothing'}")
    return known[chosen[0]]
