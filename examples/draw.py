"""Draws a picture and shows how it comes about: early views first, the picture last.

    python examples/draw.py "three green stars" --out stars.png
    python examples/draw.py "three red stars" --edit stars.png --out red.png

Views are kept beside the picture (``stars-1.jpg``, ``stars-2.jpg``). Everything goes through
the gateway by the official client (``pip install openai``), so the same program draws with
any server of OpenAI's interface that streams pictures.
"""

import argparse
import base64
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from openai import APIError, OpenAI
from openai.types import ImageEditStreamEvent, ImageGenStreamEvent

MODEL = "gpt-image-1"

Event = ImageGenStreamEvent | ImageEditStreamEvent


def events(client: OpenAI, options: argparse.Namespace) -> Iterator[Event]:
    """Asks for a picture of the prompt, or for an edit of a picture, as a stream."""
    # What OpenAI's interface does not have travels in the extra body: left out, it is drawn.
    more = {} if options.seed is None else {"seed": options.seed}
    if options.edit is None:
        yield from client.images.generate(
            model=MODEL,
            prompt=options.prompt,
            partial_images=options.views,
            stream=True,
            extra_body=more,
        )
        return
    with options.edit.open("rb") as picture:
        yield from client.images.edit(
            model=MODEL,
            image=picture,
            prompt=options.prompt,
            partial_images=options.views,
            stream=True,
            extra_body=more,
        )


def draw(client: OpenAI, options: argparse.Namespace) -> None:
    """Keeps each view and the picture as it arrives, and says when that was."""
    began = time.perf_counter()
    for event in events(client, options):
        out: Path = options.out
        if event.type in ("image_generation.partial_image", "image_edit.partial_image"):
            out = out.with_name(f"{out.stem}-{event.partial_image_index + 1}.jpg")
        out.write_bytes(base64.b64decode(event.b64_json))
        print(f"{out} after {time.perf_counter() - began:.2f} s")


def main() -> None:
    """Reads the command line; leaves with one line where the server refuses."""
    parser = argparse.ArgumentParser(description="Draws a picture and its early views.")
    parser.add_argument("prompt", help="what to draw")
    parser.add_argument("--out", type=Path, required=True, help="PNG file of the picture")
    parser.add_argument("--edit", type=Path, help="a picture to start from")
    parser.add_argument("--views", type=int, default=3, help="early views, 1 to 3 (%(default)s)")
    parser.add_argument("--seed", type=int, help="the same seed draws the same picture")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the gateway (%(default)s)")
    options = parser.parse_args()
    # `make run` keeps a key for development in .atrium/dev.key.
    key = os.environ.get("ATRIUM_KEY") or Path(".atrium/dev.key").read_text().strip()
    try:
        with OpenAI(base_url=f"{options.url}/v1", api_key=key) as client:
            draw(client, options)
    except (APIError, OSError) as err:
        sys.exit(f"draw: {err}")


if __name__ == "__main__":
    main()
