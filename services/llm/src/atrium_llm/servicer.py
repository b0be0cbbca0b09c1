"""TextGenerationService over the engines: one method per RPC, no model code.

`__main__` hands it to `serve`. Each engine has a work queue of its own, so that a full
chat model does not keep an outside provider's models waiting.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

import grpc.aio
from google.protobuf.message import Message

from atrium.llm.v1 import llm_pb2 as pb
from atrium.llm.v1 import llm_pb2_grpc as pb_grpc
from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.context import current_context, report_usage
from atrium_common.domain import Capability, Usage
from atrium_common.service import Context, WorkEstimate
from atrium_common.wire import model_to_proto, usage_to_proto
from atrium_common.work import Ticket, WorkQueue
from atrium_llm import convert
from atrium_llm.coalescing import coalesced
from atrium_llm.domain import GenerationEvent, GenerationJob
from atrium_llm.engines.router import EngineRouter


@dataclass(frozen=True, slots=True)
class _Turn:
    """A request's turn at its engine: how long it waited and since when it runs."""

    ticket: Ticket
    clock: Callable[[], float]

    def stamp(self, usage: Usage) -> Usage:
        """Adds the times of this request to what its engine counted."""
        running = timedelta(seconds=self.clock() - self.ticket.started)
        return replace(usage, queue_time=self.ticket.queue_time, inference_time=running)


class TextGenerationServicer(pb_grpc.TextGenerationServiceServicer):
    """Serves the language models of the catalogue."""

    service_name = "atrium.llm.v1.TextGenerationService"

    def __init__(
        self,
        engines: EngineRouter,
        catalogue: Catalogue,
        *,
        max_queue: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Puts a queue in front of each engine.

        Args:
            engines: The engines of the catalogue's language models.
            catalogue: Resolves names and aliases.
            max_queue: Requests that may wait for an engine.
            clock: Monotonic seconds; the same clock as the context's deadlines.
        """
        self._engines = engines
        self._catalogue = catalogue
        self._clock = clock
        self.queues = {
            engine.name: WorkQueue(slots=engine.scheduling.slots, max_queue=max_queue, clock=clock)
            for engine in engines.engines
        }

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the handlers to `server`."""
        pb_grpc.add_TextGenerationServiceServicer_to_server(self, server)

    def estimate(self, method: str, request: Message) -> WorkEstimate | None:
        """Bounds what a call may consume; see `Servicer.estimate`.

        Raises:
            NotFound: The model is unknown.
            InvalidArgument: The request can't be served.
        """
        del method
        if isinstance(request, pb.GenerateTextRequest | pb.StreamGenerateTextRequest):
            capability = convert.input_capability(request.job)
            job, entry = self._generation(request.job)
            bound = convert.generation_bound(job, context_length=_window(entry))
        elif isinstance(request, pb.EmbedTextRequest):
            capability = Capability.EMBEDDING
            entry = self._resolve(request.model, capability)
            embedding = convert.embedding_job(
                request, model=entry.id, dimensions=entry.embedding_dimensions
            )
            bound = convert.embedding_bound(embedding, context_length=_window(entry))
        elif isinstance(request, pb.RerankDocumentsRequest):
            capability = Capability.RERANK
            entry = self._resolve(request.model, capability)
            ranking = convert.rerank_job(request, model=entry.id)
            bound = convert.rerank_bound(ranking, context_length=_window(entry))
        else:
            return None
        return WorkEstimate(capability, entry.id, bound)

    async def GenerateText(
        self, request: pb.GenerateTextRequest, context: Context
    ) -> pb.GenerateTextResponse:
        """Answers in one message: drains the stream."""
        del context
        job, entry = self._generation(request.job)
        answer = convert.AnswerBuilder()
        usage = Usage()
        async with aclosing(self._run(job, entry)) as events:
            async for event in events:
                usage = event.usage
                report_usage(usage)
                for delta in event.deltas:
                    answer.add(delta)
        return pb.GenerateTextResponse(choices=answer.choices(), usage=usage_to_proto(usage))

    async def StreamGenerateText(
        self, request: pb.StreamGenerateTextRequest, context: Context
    ) -> AsyncIterator[pb.StreamGenerateTextResponse]:
        """Answers as it is generated."""
        del context
        job, entry = self._generation(request.job)
        interval = convert.min_interval(request)
        run = self._run(job, entry)
        async with aclosing(coalesced(run, min_interval=interval)) as events:
            async for event in events:
                yield pb.StreamGenerateTextResponse(
                    deltas=[convert.delta_to_proto(delta) for delta in event.deltas],
                    usage=usage_to_proto(event.usage),
                )

    async def _run(
        self, job: GenerationJob, entry: ModelEntry
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Runs a generation in its turn; closing it closes the engine's stream first."""
        bound = convert.generation_bound(job, context_length=_window(entry))
        async with self._turn(entry, bound) as turn:
            # Engines write their streams as async generators; the port promises less.
            stream = cast("AsyncGenerator[GenerationEvent, None]", self._engines.generate(job))
            async with aclosing(stream) as events:
                async for event in events:
                    yield replace(event, usage=turn.stamp(event.usage))

    async def EmbedText(
        self, request: pb.EmbedTextRequest, context: Context
    ) -> pb.EmbedTextResponse:
        """Turns texts into vectors."""
        del context
        entry = self._resolve(request.model, Capability.EMBEDDING)
        job = convert.embedding_job(request, model=entry.id, dimensions=entry.embedding_dimensions)
        bound = convert.embedding_bound(job, context_length=_window(entry))
        async with self._turn(entry, bound) as turn:
            result = await self._engines.embed(job)
            usage = turn.stamp(result.usage)
        return pb.EmbedTextResponse(
            embeddings=convert.embeddings_to_proto(result.vectors), usage=usage_to_proto(usage)
        )

    async def RerankDocuments(
        self, request: pb.RerankDocumentsRequest, context: Context
    ) -> pb.RerankDocumentsResponse:
        """Orders documents by their relevance to a query."""
        del context
        entry = self._resolve(request.model, Capability.RERANK)
        job = convert.rerank_job(request, model=entry.id)
        bound = convert.rerank_bound(job, context_length=_window(entry))
        async with self._turn(entry, bound) as turn:
            result = await self._engines.rerank(job)
            usage = turn.stamp(result.usage)
        return pb.RerankDocumentsResponse(
            results=convert.ranking_to_proto(result.results), usage=usage_to_proto(usage)
        )

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: Context
    ) -> pb.CountTokensResponse:
        """Counts tokens as generation would; needs no turn, for no model runs."""
        del context
        entry = self._resolve(request.model, convert.input_capability(request))
        prompt = convert.prompt_to_count(request)
        count = await self._engines.count_tokens(entry.id, prompt)
        windows = {model.id: model.context_length for model in self._engines.models()}
        return pb.CountTokensResponse(
            input_tokens=count,
            context_length=windows.get(entry.id) or _window(entry),
            model=entry.id,
        )

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Lists the language models, in catalogue order."""
        del request, context
        models = [model_to_proto(model) for model in self._engines.models()]
        return pb.ListModelsResponse(models=models)

    def _generation(self, wire: pb.GenerationJob) -> tuple[GenerationJob, ModelEntry]:
        entry = self._resolve(wire.model, convert.input_capability(wire))
        return convert.generation_job(wire, model=entry.id), entry

    def _resolve(self, name: str, capability: Capability) -> ModelEntry:
        entry = self._catalogue.resolve(name, capability)
        self._engines.engine_of(entry.id)
        return entry

    @asynccontextmanager
    async def _turn(self, entry: ModelEntry, bound: Usage) -> AsyncIterator[_Turn]:
        """Waits for the request's turn at its engine and holds it for the block."""
        caller = current_context()
        queue = self.queues[self._engines.engine_of(entry.id).name]
        async with queue.enter(
            tenant=caller.tenant,
            weight=caller.weight,
            cost=max(1, bound.input_tokens + bound.output_tokens),
            deadline=caller.deadline,
            model=entry.id,
        ) as ticket:
            yield _Turn(ticket, self._clock)


def _window(entry: ModelEntry) -> int:
    return entry.context_length or 0
