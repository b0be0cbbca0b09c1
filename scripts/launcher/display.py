"""What the person at the terminal sees: prefixed log lines, progress and the welcome.

The supervisor hands it lines; it decides nothing.
"""

import shlex
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

_COLOURS = {
    "gateway": "cyan",
    "llm": "green",
    "stt": "magenta",
    "tts": "blue",
    "text2image": "yellow",
    "img2img": "bright_red",
    "img2text": "bright_green",
    "atrium": "bold",
}
_WIDTH = 10
_JSON = "-H 'Content-Type: application/json'"
_FIRST_REQUESTS = {
    "llm": f"""\
Chat:
  curl ADDRESS/v1/chat/completions -H AUTHORIZATION \\
    {_JSON} \\
    -d '{{"model": "gpt-4o-mini", "temperature": 0, "messages": [{{"role": "user",\
 "content": "What is the capital of France?"}}]}}'
""",
    "tts": f"""\
Speech:
  curl ADDRESS/v1/audio/speech -H AUTHORIZATION \\
    {_JSON} -o speech.mp3 \\
    -d '{{"model": "tts-1", "voice": "alloy", "input": "Paris is the capital of France."}}'
""",
    "stt": """\
Transcription, of that or any other audio file:
  curl ADDRESS/v1/audio/transcriptions -H AUTHORIZATION \\
    -F model=whisper-1 -F file=@speech.mp3
""",
    "text2image": f"""\
A picture:
  curl ADDRESS/api/text-to-image -H AUTHORIZATION \\
    {_JSON} -H 'Accept: image/png' -o picture.png \\
    -d '{{"prompt": "three green stars", "seed": 1}}'
""",
    "img2img": """\
An edit, of that or any other picture:
  curl ADDRESS/api/image-to-image -H AUTHORIZATION \\
    -H 'Accept: image/png' -o edited.png \\
    -F image=@picture.png -F 'prompt=three red stars' -F strength=0.5
""",
    "img2text": """\
What that picture shows (task=ocr reads text, task=all does both):
  curl ADDRESS/api/image-to-text -H AUTHORIZATION \\
    -F file=@picture.png
""",
}
"""What to type first, by service, in the order in which it is shown."""

Report = Callable[[str, str], None]
"""Takes the name of a program and a line of text."""


class Display:
    """Writes to standard output, in colour where that is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """Whether a person watches, so that progress may be redrawn."""
        return self._console.is_terminal

    def line(self, name: str, text: str) -> None:
        """Writes one line behind the name of its program."""
        prefix = Text(f"{name:<{_WIDTH}}| ", style=_COLOURS.get(name, "white"))
        # What a process coloured by itself stays so; anything else in it is plain text.
        self._console.print(prefix + Text.from_ansi(text))

    def note(self, text: str) -> None:
        """Writes a line of the launcher's own."""
        self.line("atrium", text)

    def error(self, text: str) -> None:
        """Writes the one line that says why there is no suite."""
        prefix = Text("atrium: ", style="bold red" if self.is_terminal else "")
        self._console.print(prefix + Text(text))

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Shows `text` with a spinner on a terminal; yields a function that changes it."""
        if not self.is_terminal:
            yield lambda _: None
            return
        with self._console.status(text) as status:
            yield status.update

    def welcome(self, *, address: str, key: str, key_file: str, services: Collection[str]) -> None:
        """Says where the suite is, and what to type first for each of `services`."""
        authorization = shlex.quote(f"Authorization: Bearer {key}")
        lines = [
            "",
            f"Atrium is ready at {address}  (reference: {address}/docs)",
            f"Development key, also in {key_file}: {key}",
            "",
        ]
        for service, first_request in _FIRST_REQUESTS.items():
            if service in services:
                request = first_request.replace("ADDRESS", address)
                lines += request.replace("AUTHORIZATION", authorization).splitlines()
        lines += ["", "Ctrl-C stops everything.", ""]
        for text in lines:
            self._console.print(Text(text), style="bold" if text.startswith("Atrium") else None)
