"""Client of the llm service: generations, embeddings, token counts."""

from collections.abc import Sequence
from functools import partial

import grpc.aio

from atrium.llm.v1 import llm_pb2, llm_pb2_grpc
from atrium_gateway.upstreams import llm_convert
from atrium_gateway.upstreams.calls import (
    Credentials,
    SingleCall,
    StreamedCall,
    WholeCall,
    unmetered,
)
from atrium_gateway.upstreams.chain import ChainedCalls
from atrium_gateway.upstreams.inquiry import UsageInquiry
from atrium_gateway.upstreams.port import Caller
from atrium_gateway.upstreams.text import Delta, Generation, Prompt

SERVICE = "atrium.llm.v1.TextGenerationService"
GENERATE = f"/{SERVICE}/StreamGenerateText"
GENERATE_WHOLE = f"/{SERVICE}/GenerateText"
EMBED = f"/{SERVICE}/EmbedText"
COUNT_SECONDS = 10.0
MAX_VALUES = 1_000_000
"""Numbers in one answer; more 4-byte floats than these do not fit in a message of 4 MiB."""
UNKNOWN_WIDTH = 4096
"""Dimensions assumed of a model whose catalogue entry names none."""

GenerationCall = StreamedCall[llm_pb2.StreamGenerateTextResponse, Sequence[Delta]]
WholeGenerationCall = WholeCall[llm_pb2.GenerateTextResponse, Sequence[Delta]]
Vectors = Sequence[Sequence[float]]
EmbeddingCall = SingleCall[llm_pb2.EmbedTextResponse, Vectors]


class LlmUpstream:
    """The llm service, over one channel."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self._stub = llm_pb2_grpc.TextGenerationServiceStub(channel)
        self._credentials = credentials
        self._inquiry = UsageInquiry(channel, credentials)

    def generate(self, job: Generation, caller: Caller) -> GenerationCall:
        """Starts a generation; each event is what is new, none in the first."""
        call = self._stub.StreamGenerateText(
            llm_convert.request(job),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return StreamedCall(call, llm_convert.deltas)

    def generate_whole(self, job: Generation, caller: Caller) -> WholeGenerationCall:
        """Starts a generation whose one event is everything, one delta for each choice.

        A caller's reservation has one such call: the service is asked by it what a call that
        broke off has consumed.
        """
        call = self._stub.GenerateText(
            llm_pb2.GenerateTextRequest(job=llm_convert.generation(job)),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return WholeCall(call, llm_convert.whole, partial(self._inquiry.consumed, caller))

    def embed(
        self,
        model: str,
        inputs: Sequence[str | Sequence[int]],
        dimensions: int | None,
        caller: Caller,
        *,
        width: int | None = None,
    ) -> ChainedCalls[Vectors]:
        """Embeds texts or token ids, in as many calls as their vectors need messages.

        Each event is the vectors of the next inputs, in order.

        Args:
            model: Catalogue id.
            inputs: At least one.
            dimensions: Values that are asked for; ``None`` for all that the model gives.
            caller: In whose name.
            width: Values that the model gives, if that is known.
        """
        most = max(1, MAX_VALUES // (dimensions or width or UNKNOWN_WIDTH))
        return ChainedCalls(
            [
                partial(self._embed, model, inputs[at : at + most], dimensions, caller)
                for at in range(0, len(inputs), most)
            ]
        )

    def _embed(
        self,
        model: str,
        inputs: Sequence[str | Sequence[int]],
        dimensions: int | None,
        caller: Caller,
    ) -> EmbeddingCall:
        call = self._stub.EmbedText(
            llm_pb2.EmbedTextRequest(
                model=model, inputs=llm_convert.inputs(inputs), dimensions=dimensions
            ),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return SingleCall(call, llm_convert.vectors)

    async def count_tokens(
        self, model: str, prompt: Prompt, *, tenant: str, request_id: str
    ) -> int:
        """Counts a prompt exactly, as a generation would be charged for it."""
        request = llm_pb2.CountTokensRequest(model=model)
        llm_convert.set_prompt(request, prompt)
        reply = await unmetered(
            self._stub.CountTokens(
                request,
                metadata=self._credentials.plain(tenant, request_id),
                timeout=COUNT_SECONDS,
            )
        )
        return reply.input_tokens
