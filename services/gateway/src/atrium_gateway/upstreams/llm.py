"""Client of the llm service: generations, embeddings, token counts."""

from collections.abc import Sequence

import grpc.aio

from atrium.llm.v1 import llm_pb2, llm_pb2_grpc
from atrium_gateway.upstreams import llm_convert
from atrium_gateway.upstreams.calls import Credentials, SingleCall, StreamedCall, translated
from atrium_gateway.upstreams.port import Caller
from atrium_gateway.upstreams.text import Delta, Generation, Prompt

SERVICE = "atrium.llm.v1.TextGenerationService"
GENERATE = f"/{SERVICE}/StreamGenerateText"
EMBED = f"/{SERVICE}/EmbedText"
COUNT_SECONDS = 10.0

GenerationCall = StreamedCall[llm_pb2.StreamGenerateTextResponse, Sequence[Delta]]
EmbeddingCall = SingleCall[llm_pb2.EmbedTextResponse, Sequence[Sequence[float]]]


class LlmUpstream:
    """The llm service, over one channel."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self._stub = llm_pb2_grpc.TextGenerationServiceStub(channel)
        self._credentials = credentials

    def generate(self, job: Generation, caller: Caller) -> GenerationCall:
        """Starts a generation; each event is what is new, none in the first."""
        call = self._stub.StreamGenerateText(
            llm_convert.request(job),
            metadata=self._credentials.metadata(caller),
            timeout=caller.deadline.total_seconds(),
        )
        return StreamedCall(call, llm_convert.deltas)

    def embed(
        self,
        model: str,
        inputs: Sequence[str | Sequence[int]],
        dimensions: int | None,
        caller: Caller,
    ) -> EmbeddingCall:
        """Embeds texts or token ids; the one event is the vectors, in order."""
        call = self._stub.EmbedText(
            llm_pb2.EmbedTextRequest(
                model=model, inputs=llm_convert.inputs(inputs), dimensions=dimensions
            ),
            metadata=self._credentials.metadata(caller),
            timeout=caller.deadline.total_seconds(),
        )
        return SingleCall(call, llm_convert.vectors)

    async def count_tokens(
        self, model: str, prompt: Prompt, *, tenant: str, request_id: str
    ) -> int:
        """Counts a prompt exactly, as a generation would be charged for it."""
        request = llm_pb2.CountTokensRequest(model=model)
        llm_convert.set_prompt(request, prompt)
        try:
            reply = await self._stub.CountTokens(
                request,
                metadata=self._credentials.plain(tenant, request_id),
                timeout=COUNT_SECONDS,
            )
        except grpc.aio.AioRpcError as err:
            raise translated(err) from err
        return reply.input_tokens
