"""The pictures of a conversation: where they stand, and their bytes; `chat.py` asks for both."""

import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atrium_common.errors import AtriumError, InvalidArgument, MediaError, TooLarge
from atrium_gateway.api.chat_schema import ChatRequest, ImagePart, ImageUrl, UserMessage
from atrium_gateway.deps import Gateway

FETCH_SECONDS = 30.0
"""Longest time that all pictures of a conversation may take to come from their addresses."""
MAX_FETCHED = 16
"""Pictures that are fetched for one conversation."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture stands.

    Attributes:
        message: Index of the message.
        part: Index of the part in it.
        image: What stands there.
    """

    message: int
    part: int
    image: ImageUrl

    @property
    def field(self) -> str:
        """Path of the picture's URL in the request."""
        return f"messages[{self.message}].content[{self.part}].image_url.url"


Pictures = Mapping[tuple[int, int], bytes]
"""Encoded pictures by message and part."""


def places(request: ChatRequest) -> Sequence[Place]:
    """Finds the pictures, in order.

    Raises:
        InvalidArgument: One asks for a level of detail.
    """
    found = [
        Place(at, number, part.image_url)
        for at, message in enumerate(request.messages)
        if isinstance(message, UserMessage) and not isinstance(message.content, str)
        for number, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    for place in found:
        if place.image.detail not in (None, "auto"):
            raise InvalidArgument(
                "How closely a picture is looked at is the model's own: take 'auto', or leave "
                "'detail' out.",
                field=place.field.removesuffix("url") + "detail",
            )
    return found


async def opened(gateway: Gateway, found: Sequence[Place], *, limit: int) -> Pictures:
    """Gives the pictures' bytes, fetched where only their address came.

    Args:
        gateway: Fetches, where the operator allows it.
        found: Where they stand.
        limit: Most bytes of all together.

    Raises:
        InvalidArgument: A URL is no picture in base64, or may not be or can't be fetched.
        MediaError: One is empty.
        TooLarge: They are over the limit.
    """
    deadline = time.monotonic() + FETCH_SECONDS
    left, fetched = limit, 0
    pictures: dict[tuple[int, int], bytes] = {}
    for place in found:
        if place.image.url[:5].lower() == "data:":
            data = _decoded(place)
        else:
            fetched += 1
            data = await _fetched(gateway, place, number=fetched, limit=left, deadline=deadline)
        if not data:
            raise MediaError("The picture is empty.", field=place.field)
        left -= len(data)
        if left < 0:
            raise TooLarge(f"Pictures have at most {limit} bytes here.", field=place.field)
        pictures[place.message, place.part] = data
    return pictures


def _decoded(place: Place) -> bytes:
    head, _, data = place.image.url.partition(",")
    head = head.lower()
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise InvalidArgument(
            "The data URL must be a picture in base64: 'data:image/png;base64,...'.",
            field=place.field,
        )
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as err:
        raise InvalidArgument(
            "The image's data URL is not valid base64.", field=place.field
        ) from err


async def _fetched(
    gateway: Gateway, place: Place, *, number: int, limit: int, deadline: float
) -> bytes:
    if gateway.fetcher is None:
        raise InvalidArgument(
            "Nothing is fetched here: send the picture as a data URL.",
            reason="URL_NOT_ALLOWED",
            field=place.field,
        )
    if number > MAX_FETCHED:
        raise InvalidArgument(
            f"At most {MAX_FETCHED} pictures are fetched for one conversation.", field=place.field
        )
    try:
        return await gateway.fetcher.fetch(place.image.url, limit=limit, deadline=deadline)
    except AtriumError as err:
        err.field = place.field
        raise
