"""A server that plays the images API of a provider, for the tests of both `openai` engines."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from atrium_diffusion.domain import Pixels

SECRET = "sk-very-secret"  # noqa: S105 - known to tests alone
Handler = Callable[["Asked"], Awaitable[Response]]


@dataclass(frozen=True)
class Asked:
    """One request as the provider got it.

    Attributes:
        path: Behind ``/v1``.
        key: The authorization header.
        fields: Everything but files.
        files: Files by their field, in order.
    """

    path: str
    key: str
    fields: Mapping[str, object]
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height that are asked for."""
        width, height = str(self.fields["size"]).split("x")
        return int(width), int(height)


class ImageProvider:
    """Answers with plain pictures: number i is filled with grey level 10 * i.

    Attributes:
        url: Its address.
        asked: Requests, in order.
        handle: Answers them.
        models_status: Status of its list of models.
        arrived: Set with the first request.
        left: Set when a caller left while `wait` was answering.
    """

    def __init__(self) -> None:
        self.url = ""
        self.reset()

    def reset(self) -> None:
        """Forgets what was asked, and draws again."""
        self.asked: list[Asked] = []
        self.handle: Handler = self.draw
        self.models_status = 200
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()

    async def draw(self, asked: Asked) -> Response:
        """Gives what is asked for."""
        width, height = asked.size
        return pictures(
            *(np.full((height, width, 3), 10 * i, np.uint8) for i in range(_count(asked)))
        )

    async def wait(self, asked: Asked) -> Response:
        """Never answers."""
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.left.set()
            raise
        return Response()

    async def answer(self, request: Request) -> Response:
        """Notes a request and answers it, or notes that its caller left."""
        asked = await _read(request)
        self.asked.append(asked)
        self.arrived.set()
        answering = asyncio.ensure_future(self.handle(asked))
        leaving = asyncio.ensure_future(_left(request))
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not answering.done():
            answering.cancel()
            await asyncio.wait({answering})
            return Response()
        return answering.result()

    async def list_models(self, request: Request) -> Response:
        """Lists no models, with `models_status`."""
        del request
        return JSONResponse({"object": "list", "data": []}, status_code=self.models_status)


@asynccontextmanager
async def image_provider() -> AsyncIterator[ImageProvider]:
    """Serves until the block ends."""
    provider = ImageProvider()
    app = Starlette(
        routes=[
            Route("/v1/images/generations", provider.answer, methods=["POST"]),
            Route("/v1/images/edits", provider.answer, methods=["POST"]),
            Route("/v1/models", provider.list_models),
        ]
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    provider.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield provider
    finally:
        server.should_exit = True
        await task


def pictures(*made: Pixels) -> Response:
    """Answers with pictures."""
    return items(*({"b64_json": base64.b64encode(png(pixels)).decode()} for pixels in made))


def items(*data: Mapping[str, object]) -> Response:
    """Answers with items as they are."""
    return JSONResponse({"created": 1, "data": list(data)})


def answers(response: Response) -> Handler:
    """Makes a handler that always gives the same answer."""

    async def handle(asked: Asked) -> Response:
        del asked
        return response

    return handle


def refuses(status: int, *, headers: Mapping[str, str] | None = None, **error: object) -> Handler:
    """Makes a handler that answers with an error whose text holds the key."""
    body = {"error": {"message": f"no good, {SECRET}", "type": "x", **error}}
    return answers(JSONResponse(body, status_code=status, headers=headers))


def png(pixels: Pixels) -> bytes:
    """Encodes a picture."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _count(asked: Asked) -> int:
    return int(str(asked.fields.get("n", 1)))


async def _read(request: Request) -> Asked:
    path = request.url.path.removeprefix("/v1")
    key = request.headers["authorization"]
    if "json" in request.headers.get("content-type", ""):
        return Asked(path, key, await request.json())
    fields: dict[str, object] = {}
    files: dict[str, bytes] = {}
    async with request.form() as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files[name] = await value.read()
            else:
                fields[name] = value
    return Asked(path, key, fields, files)


async def _left(request: Request) -> None:
    """Returns when the caller of a request that was read closes its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
