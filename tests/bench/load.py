"""A small closed-loop HTTP load generator; the benchmarks run it as its own process.

Run: ``python tests/bench/load.py '<json of LoadPlan>'``; prints one JSON object.
It keeps one connection per caller and sends the next request when the last one is
answered, so that the server under test is never flooded with work it would refuse.
"""

import asyncio
import itertools
import json
import sys
import time
import uuid
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class LoadPlan:
    """What to send.

    Attributes:
        url: Where to POST.
        body: JSON body as text.
        headers: Extra request headers.
        callers: Connections that send at the same time.
        seconds: Length of the run; a caller finishes the request it has begun.
        requests: Stop after this many requests per caller instead, if above 0.
        stream: Count server-sent events and note the first one's time.
        keyed: Give each request an `Idempotency-Key` of its own.
    """

    url: str
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    callers: int = 8
    seconds: float = 3.0
    requests: int = 0
    stream: bool = False
    keyed: bool = False


@dataclass
class LoadResult:
    """What came back; times in seconds."""

    requests: int = 0
    errors: int = 0
    events: int = 0
    completion_tokens: int = 0
    wall: float = 0.0
    latencies: list[float] = field(default_factory=list)
    first_event: list[float] = field(default_factory=list)
    error_sample: str = ""


async def _read_body(
    reader: asyncio.StreamReader, headers: dict[str, str], on_data: "asyncio.Future[None] | None"
) -> bytes:
    """Reads a body by content-length or chunked coding."""
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    parts = []
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if size == 0:
            return b"".join(parts)
        if on_data is not None and not on_data.done() and b'"content":"' in data:
            on_data.set_result(None)
        parts.append(data[:-2])


async def _one(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: bytes,
    plan: LoadPlan,
    result: LoadResult,
) -> None:
    start = time.perf_counter()
    writer.write(request)
    status = int((await reader.readline()).split()[1])
    headers: dict[str, str] = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    first: asyncio.Future[None] | None = None
    if plan.stream:
        first = asyncio.get_running_loop().create_future()
        first.add_done_callback(lambda _: result.first_event.append(time.perf_counter() - start))
    body = await _read_body(reader, headers, first)
    result.latencies.append(time.perf_counter() - start)
    result.requests += 1
    if status != 200:
        result.errors += 1
        result.error_sample = body[:300].decode("utf-8", "replace")
    elif plan.stream:
        result.events += body.count(b"data: ")
        for line in body.split(b"\n\n"):
            if b'"usage":{' in line:
                result.completion_tokens += json.loads(line[6:])["usage"]["completion_tokens"]
    elif b'"completion_tokens"' in body:
        result.completion_tokens += json.loads(body)["usage"]["completion_tokens"]


async def run(plan: LoadPlan) -> LoadResult:
    """Runs the plan and returns the sums of all callers."""
    parts = urlsplit(plan.url)
    body = plan.body.encode()
    head = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
    head += [f"{name}: {value}" for name, value in plan.headers.items()]
    head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    start_of = "\r\n".join(head).encode()
    keys = (f"\r\nIdempotency-Key: {uuid.uuid4().hex}".encode() for _ in itertools.repeat(None))

    def request() -> bytes:
        return start_of + (next(keys) if plan.keyed else b"") + b"\r\n\r\n" + body

    result = LoadResult()
    end = time.perf_counter() + plan.seconds

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 22)
        sent = 0
        while sent < plan.requests if plan.requests else time.perf_counter() < end:
            await _one(reader, writer, request(), plan, result)
            sent += 1
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(plan.callers)))
    result.wall = time.perf_counter() - start
    return result


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(run(LoadPlan(**json.loads(sys.argv[1])))))))
