"""A speech service that says when each chunk left it, to measure what the gateway adds.

Each chunk of "audio" begins with the time of its sending, on the clock that all processes
of a machine share. Run as its own process: ``python tests/bench/stamps.py PORT``.
"""

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from atrium.common.v1 import media_pb2, usage_pb2
from atrium.tts.v1 import tts_pb2, tts_pb2_grpc

SERVICE = "atrium.tts.v1.SpeechSynthesisService"
CHUNKS = 100
CHUNK_BYTES = 12_000
"""A quarter of a second of PCM."""
STAMP_BYTES = 8
PAUSE_SECONDS = 0.02
"""Between two chunks, so that each one travels alone."""


def stamp() -> bytes:
    """Nanoseconds of the machine's monotonic clock."""
    return time.monotonic_ns().to_bytes(STAMP_BYTES, "little")


class StampServicer(tts_pb2_grpc.SpeechSynthesisServiceServicer):
    """Answers every text alike."""

    async def SynthesizeSpeech(
        self, request: tts_pb2.SynthesizeSpeechRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[tts_pb2.SynthesizeSpeechResponse]:
        """Sends the info, the stamped chunks and the end."""
        info = tts_pb2.SpeechInfo(
            model=request.model,
            voice="stamp",
            format=request.format,
            sample_rate=24_000,
            content_type="audio/pcm",
            sentences=1,
        )
        usage = usage_pb2.Usage(
            model=request.model,
            engine="stamps",
            characters=len(request.text),
            output_audio=Duration(seconds=CHUNKS // 4),
        )
        yield tts_pb2.SynthesizeSpeechResponse(info=info, usage=usage)
        digest = hashlib.sha256()
        for _ in range(CHUNKS):
            await asyncio.sleep(PAUSE_SECONDS)
            data = stamp() + bytes(CHUNK_BYTES - STAMP_BYTES)
            digest.update(data)
            chunk = media_pb2.MediaChunk(data=data)
            yield tts_pb2.SynthesizeSpeechResponse(chunk=chunk, usage=usage)
        end = media_pb2.MediaEnd(sha256=digest.digest(), size=CHUNKS * CHUNK_BYTES)
        yield tts_pb2.SynthesizeSpeechResponse(end=end, usage=usage)


async def serve(port: int) -> None:
    """Serves until it is killed."""
    server = grpc.aio.server()
    tts_pb2_grpc.add_SpeechSynthesisServiceServicer_to_server(StampServicer(), server)
    states = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    for name in ("", SERVICE):
        await states.set(name, health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
