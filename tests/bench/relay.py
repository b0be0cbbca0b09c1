"""The baseline of the gateway benchmark: a bare FastAPI-to-grpc.aio relay.

What anyone would write in an hour: pydantic in, one RPC, pydantic out. No
authentication, no limits, no ledger, no error shapes. Run as its own process:
``python tests/bench/relay.py PORT LLM_TARGET SERVICE_CREDENTIAL``.
"""

import sys
import time
import uuid
from collections.abc import AsyncIterator

import grpc
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from atrium.llm.v1 import llm_pb2, llm_pb2_grpc


class Message(BaseModel):
    """A chat message."""

    role: str
    content: str


class ChatRequest(BaseModel):
    """The part of a chat request that the benchmark sends."""

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    stream: bool = False
    stream_options: dict[str, bool] | None = None


class ChatMessage(BaseModel):
    """A chat answer's message."""

    role: str = "assistant"
    content: str


class ChatChoice(BaseModel):
    """A chat answer's choice."""

    index: int
    message: ChatMessage
    finish_reason: str


class ChatUsage(BaseModel):
    """A chat answer's usage."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatResponse(BaseModel):
    """A chat answer."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


class DeltaChoice(BaseModel):
    """A streamed choice."""

    index: int
    delta: dict[str, str]
    finish_reason: str | None = None


class ChatChunk(BaseModel):
    """A streamed piece of an answer."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[DeltaChoice]


def _job(request: ChatRequest) -> llm_pb2.GenerationJob:
    return llm_pb2.GenerationJob(
        model=request.model,
        chat=llm_pb2.ChatInput(
            messages=[
                llm_pb2.ChatMessage(
                    role=llm_pb2.Role.Value(f"ROLE_{message.role.upper()}"),
                    content=[llm_pb2.ContentPart(text=message.content)],
                )
                for message in request.messages
            ]
        ),
        sampling=llm_pb2.SamplingParams(max_tokens=request.max_tokens),
    )


def create_app(target: str, credential: str) -> FastAPI:
    """Builds the relay over one llm service."""
    app = FastAPI()
    metadata = (
        ("x-atrium-service", credential),
        ("x-atrium-tenant", "bench"),
        ("x-atrium-reservation", "bench"),
    )
    stubs: list[llm_pb2_grpc.TextGenerationServiceStub] = []

    def stub() -> llm_pb2_grpc.TextGenerationServiceStub:
        if not stubs:
            channel = grpc.aio.insecure_channel(target)
            stubs.append(llm_pb2_grpc.TextGenerationServiceStub(channel))
        return stubs[0]

    async def events(request: ChatRequest) -> AsyncIterator[str]:
        ident, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        call = stub().StreamGenerateText(
            llm_pb2.StreamGenerateTextRequest(job=_job(request)), metadata=metadata
        )
        async for message in call:
            for delta in message.deltas:
                chunk = ChatChunk(
                    id=ident,
                    created=created,
                    model=request.model,
                    choices=[DeltaChoice(index=delta.index, delta={"content": delta.text})],
                )
                yield f"data: {chunk.model_dump_json()}\n\n"
        yield "data: [DONE]\n\n"

    @app.post("/v1/chat/completions", response_model=ChatResponse)
    async def chat(request: ChatRequest) -> ChatResponse | StreamingResponse:
        if request.stream:
            return StreamingResponse(events(request), media_type="text/event-stream")
        answer = await stub().GenerateText(
            llm_pb2.GenerateTextRequest(job=_job(request)), metadata=metadata
        )
        usage = answer.usage
        return ChatResponse(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=request.model,
            choices=[
                ChatChoice(
                    index=choice.index,
                    message=ChatMessage(content=choice.text),
                    finish_reason="stop",
                )
                for choice in answer.choices
            ],
            usage=ChatUsage(
                prompt_tokens=usage.input_tokens,
                completion_tokens=usage.output_tokens,
                total_tokens=usage.input_tokens + usage.output_tokens,
            ),
        )

    return app


if __name__ == "__main__":
    _, port, llm_target, service_credential = sys.argv
    uvicorn.run(
        create_app(llm_target, service_credential),
        port=int(port),
        log_level="error",
        access_log=False,
    )
