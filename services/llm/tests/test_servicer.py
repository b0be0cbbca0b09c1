"""Every RPC behind the real edge: a server on a socket, and the fake engine under it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import NamedTuple

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from atrium.llm.v1 import llm_pb2 as pb
from atrium.llm.v1 import llm_pb2_grpc as pb_grpc
from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.domain import Capability
from atrium_common.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    Overloaded,
    Unavailable,
)
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import (
    FakeAdmission,
    gateway_metadata,
    running_server,
    tenant_metadata,
)
from atrium_common.wire import duration_from_proto
from atrium_llm.engines.fake import FakeEngine
from atrium_llm.engines.router import EngineRouter
from atrium_llm.servicer import TextGenerationServicer

GATEWAY = gateway_metadata()


class Running(NamedTuple):
    """The service under test, seen from both ends."""

    stub: "pb_grpc.TextGenerationServiceAsyncStub"
    engine: FakeEngine
    servicer: TextGenerationServicer


@asynccontextmanager
async def running(
    *, admission: FakeAdmission | None = None, max_queue: int = 64, **options: float
) -> AsyncIterator[Running]:
    """Serves the fake engine with the given options of its chat model."""
    catalogue = Catalogue(
        models=(
            ModelEntry(
                id="fake-chat",
                service="llm",
                capabilities=(Capability.CHAT, Capability.COMPLETION),
                engine="fake",
                aliases=("gpt-4o-mini",),
                context_length=4096,
                digest="ab" * 32,
                options={**options},
            ),
            ModelEntry(
                id="fake-embedding",
                service="llm",
                capabilities=(Capability.EMBEDDING, Capability.RERANK),
                engine="fake",
                embedding_dimensions=16,
                context_length=512,
                options={"slots": options.get("slots", 64)},
            ),
        )
    )
    engine = FakeEngine(catalogue.models)
    router = EngineRouter({"fake": engine}, {entry.id: "fake" for entry in catalogue.models})
    servicer = TextGenerationServicer(router, catalogue, max_queue=max_queue)
    async with running_server(servicer, router, admission=admission) as server:
        yield Running(pb_grpc.TextGenerationServiceStub(server.channel), engine, servicer)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service() -> AsyncIterator[Running]:
    """A service at full speed, one token in each message."""
    async with running(reply_tokens=12, tokens_per_step=1) as started:
        yield started


def chat_job(model: str = "", **sampling: object) -> pb.GenerationJob:
    job = pb.GenerationJob(model=model, sampling=pb.SamplingParams(**sampling))  # type: ignore[arg-type]
    job.chat.messages.add(role=pb.ROLE_USER).content.add(text="hello you there")
    return job


async def stream(
    service: Running, job: pb.GenerationJob, **call: object
) -> list[pb.StreamGenerateTextResponse]:
    request = pb.StreamGenerateTextRequest(job=job)
    replies = service.stub.StreamGenerateText(request, metadata=GATEWAY, **call)
    return [reply async for reply in replies]


async def until(holds: Callable[[], bool]) -> None:
    """Waits up to two seconds for what follows at once."""
    async with asyncio.timeout(2):
        while not holds():  # noqa: ASYNC110 - the engine has no event for its counters
            await asyncio.sleep(0.001)


async def refusal(call: "grpc.aio.UnaryUnaryCall[object, object]") -> Exception:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_stream_begins_with_usage_and_ends_once(service: Running) -> None:
    replies = await stream(service, chat_job())
    assert not replies[0].deltas
    assert replies[0].usage.input_tokens == 4
    assert replies[0].usage.output_tokens == 0
    counts = [reply.usage.output_tokens for reply in replies]
    assert counts == sorted(counts)
    reasons = [delta.finish_reason for reply in replies for delta in reply.deltas]
    assert reasons[-1] == pb.FINISH_REASON_STOP
    assert not any(reasons[:-1])
    for reply in replies:
        assert (reply.usage.model, reply.usage.engine) == ("fake-chat", "fake")
        assert reply.usage.model_digest == "ab" * 32
        assert duration_from_proto(reply.usage.inference_time) > timedelta()


async def test_unary_and_stream_agree(service: Running) -> None:
    job = chat_job("gpt-4o-mini", n=3, seed=4, max_tokens=9, top_logprobs=2, stop=["over"])
    replies = await stream(service, job)
    whole = await service.stub.GenerateText(pb.GenerateTextRequest(job=job), metadata=GATEWAY)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    for choice in whole.choices:
        parts = [d for reply in replies for d in reply.deltas if d.index == choice.index]
        assert choice.text == "".join(part.text for part in parts)
        assert list(choice.logprobs) == [item for part in parts for item in part.logprobs]
        assert choice.finish_reason == parts[-1].finish_reason
        assert choice.stop == parts[-1].stop
    assert whole.usage.output_tokens == replies[-1].usage.output_tokens
    assert whole.usage.model == "fake-chat"


async def test_required_tool_is_called(service: Running) -> None:
    job = chat_job()
    schema = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
    job.chat.tools.add(name="count", parameters=schema)
    job.chat.tool_choice.mode = pb.ToolChoice.MODE_REQUIRED
    whole = await service.stub.GenerateText(pb.GenerateTextRequest(job=job), metadata=GATEWAY)
    (choice,) = whole.choices
    assert choice.finish_reason == pb.FINISH_REASON_TOOL_CALLS
    assert [(call.name, call.arguments) for call in choice.tool_calls] == [("count", '{"n": 0}')]


async def test_embeddings(service: Running) -> None:
    request = pb.EmbedTextRequest(inputs=[pb.EmbeddingInput(text=text) for text in ("a b", "c")])
    reply = await service.stub.EmbedText(request, metadata=GATEWAY)
    assert [len(one.values) for one in reply.embeddings] == [16, 16]
    assert reply.usage.input_tokens == 3
    assert reply.usage.model == "fake-embedding"


async def test_ranking(service: Running) -> None:
    request = pb.RerankDocumentsRequest(query="b", documents=["a", "b"], top_n=1)
    reply = await service.stub.RerankDocuments(request, metadata=GATEWAY)
    assert [result.index for result in reply.results] == [1]
    assert reply.usage.input_tokens > 0


async def test_a_count_is_what_generation_charges(service: Running) -> None:
    job = chat_job()
    counted = await service.stub.CountTokens(pb.CountTokensRequest(chat=job.chat), metadata=GATEWAY)
    assert counted.input_tokens == (await stream(service, job))[-1].usage.input_tokens
    assert (counted.model, counted.context_length) == ("fake-chat", 4096)


async def test_models_are_listed_in_order(service: Running) -> None:
    reply = await service.stub.ListModels(pb.ListModelsRequest(), metadata=GATEWAY)
    assert [model.id for model in reply.models] == ["fake-chat", "fake-embedding"]
    assert reply.models[0].aliases == ["gpt-4o-mini"]
    assert reply.models[1].embedding_dimensions == 16


@pytest.mark.parametrize("name", ["gpt-99", "fake-embedding"])
async def test_an_unknown_or_unfit_model_is_not_found(service: Running, name: str) -> None:
    request = pb.GenerateTextRequest(job=chat_job(name))
    error = await refusal(service.stub.GenerateText(request, metadata=GATEWAY))
    assert isinstance(error, NotFound)
    assert (error.reason, error.field) == ("MODEL_NOT_FOUND", "model")


async def test_a_bad_field_is_named_over_the_wire(service: Running) -> None:
    request = pb.GenerateTextRequest(job=chat_job(temperature=3.0))
    error = await refusal(service.stub.GenerateText(request, metadata=GATEWAY))
    assert isinstance(error, InvalidArgument)
    assert error.field == "job.sampling.temperature"


async def test_a_prompt_beyond_the_window_is_named(service: Running) -> None:
    job = pb.GenerationJob(prompt="word " * 5000)
    error = await refusal(
        service.stub.GenerateText(pb.GenerateTextRequest(job=job), metadata=GATEWAY)
    )
    assert isinstance(error, InvalidArgument)
    assert (error.reason, error.field) == ("CONTEXT_LENGTH_EXCEEDED", "job.prompt")


async def test_nobody_gets_in_without_a_credential(service: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.GenerateText(pb.GenerateTextRequest(job=chat_job()))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_no_admission_authority_no_work_for_tenants(service: Running) -> None:
    call = service.stub.GenerateText(
        pb.GenerateTextRequest(job=chat_job()), metadata=tenant_metadata()
    )
    assert isinstance(await refusal(call), Unavailable)


async def test_leaving_at_any_moment_stops_the_engine_and_frees_the_slot() -> None:
    """A few hundred callers leave: before, while and after their answer begins."""
    moments = random.Random(7)  # noqa: S311 - no secret
    async with running(reply_tokens=4000, tokens_per_step=1, tokens_per_second=500, slots=8) as one:

        async def leave(patience: int) -> None:
            request = pb.StreamGenerateTextRequest(job=chat_job())
            call = one.stub.StreamGenerateText(request, metadata=GATEWAY)
            if patience == 0:
                await asyncio.sleep(moments.random() * 0.01)
            else:
                async for _ in call:
                    patience -= 1
                    if patience == 0:
                        break
            call.cancel()

        for _ in range(30):
            await asyncio.gather(*(leave(moments.randrange(6)) for _ in range(10)))
            await until(lambda: not one.engine.running and not one.servicer.queues["fake"].running)
            steps = one.engine.steps
            await asyncio.sleep(0.006)  # three steps of the engine's pace
            assert one.engine.steps == steps
        assert one.servicer.queues["fake"].depth == 0
        assert len(await stream(one, chat_job(max_tokens=2))) == 3


async def test_one_caller_who_leaves_is_gone_within_a_step() -> None:
    async with running(reply_tokens=4000, tokens_per_step=1, tokens_per_second=20) as one:
        request = pb.StreamGenerateTextRequest(job=chat_job())
        call = one.stub.StreamGenerateText(request, metadata=GATEWAY)
        seen = 0
        async for _ in call:
            seen += 1
            if seen == 3:
                break
        before = one.engine.steps
        call.cancel()
        await asyncio.sleep(0.3)  # six steps
        assert one.engine.steps <= before + 1
        assert one.engine.running == 0


async def test_a_full_queue_refuses_at_once_and_says_when() -> None:
    async with running(
        reply_tokens=4000, tokens_per_step=1, tokens_per_second=50, slots=1, max_queue=1
    ) as one:
        request = pb.StreamGenerateTextRequest(job=chat_job())
        runs = one.stub.StreamGenerateText(request, metadata=GATEWAY)
        await runs.read()
        waits = one.stub.StreamGenerateText(request, metadata=GATEWAY)
        await until(lambda: one.servicer.queues["fake"].depth == 1)
        call = one.stub.GenerateText(pb.GenerateTextRequest(job=chat_job()), metadata=GATEWAY)
        error = await refusal(call)
        assert isinstance(error, Overloaded)
        assert error.retry_after is not None
        assert error.retry_after > timedelta()
        runs.cancel()
        waits.cancel()


async def test_a_deadline_ends_the_work() -> None:
    async with running(reply_tokens=4000, tokens_per_step=1, tokens_per_second=50) as one:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream(one, chat_job(), timeout=0.2)
        assert isinstance(from_rpc_error(caught.value), DeadlineExceeded)
        await until(lambda: one.engine.running == 0)


async def test_a_tenant_is_admitted_with_a_bound_and_charged_what_was_made() -> None:
    async with FakeAdmission() as admission, running(admission=admission, reply_tokens=6) as one:
        request = pb.GenerateTextRequest(job=chat_job(max_tokens=100, n=2))
        reply = await one.stub.GenerateText(request, metadata=tenant_metadata())
        (booking,) = await admission.closed()
        estimate = booking.request.estimate
        assert (booking.request.capability, estimate.model) == ("chat", "fake-chat")
        assert estimate.output_tokens == 200
        assert estimate.input_tokens >= reply.usage.input_tokens
        assert booking.outcome == "COMPLETED"
        assert booking.usage is not None
        assert booking.usage.output_tokens == 12


async def test_a_tenant_who_leaves_is_charged_what_was_made() -> None:
    async with (
        FakeAdmission() as admission,
        running(
            admission=admission, reply_tokens=4000, tokens_per_step=1, tokens_per_second=100
        ) as one,
    ):
        for unary in (False, True):
            job = chat_job()
            if unary:
                call = one.stub.GenerateText(
                    pb.GenerateTextRequest(job=job), metadata=tenant_metadata()
                )
                await asyncio.sleep(0.2)
            else:
                call = one.stub.StreamGenerateText(
                    pb.StreamGenerateTextRequest(job=job), metadata=tenant_metadata()
                )
                for _ in range(8):
                    await call.read()
            call.cancel()
            booking = (await admission.closed(1 + unary))[-1]
            assert booking.outcome == "CANCELLED"
            assert booking.usage is not None
            assert 7 <= booking.usage.output_tokens <= 40
            assert booking.closings == 1


async def test_a_refused_request_is_not_even_admitted() -> None:
    async with FakeAdmission() as admission, running(admission=admission) as one:
        request = pb.GenerateTextRequest(job=chat_job(top_p=7.0))
        error = await refusal(one.stub.GenerateText(request, metadata=tenant_metadata()))
        assert isinstance(error, InvalidArgument)
        assert not admission.bookings
