"""From token bytes to text that is safe to send: whole characters, no stop strings.

Engines that decode themselves feed a `TextStream` per choice, token by token.
"""

import codecs
from collections.abc import Sequence


def held_back(text: str, markers: Sequence[str]) -> int:
    """Counts the characters at the end of `text` that may be the start of a marker."""
    longest = 0
    for marker in markers:
        for length in range(min(len(marker) - 1, len(text)), longest, -1):
            if text.endswith(marker[:length]):
                longest = length
                break
    return longest


class TextStream:
    """The text of one choice as it grows.

    Bytes of a character that is not complete stay inside, and so does text that may be
    the start of a stop string. Bytes that can't be UTF-8 become U+FFFD.

    Attributes:
        stop: The stop string that was met, or ``None``. Nothing follows it.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        """Takes the strings that end the text; they are never part of it."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = tuple(stop)
        self._pending = ""
        self.stop: str | None = None

    def push(self, data: bytes, *, may_stop: bool = True) -> str:
        """Adds the bytes of one token and returns the text that is safe now.

        Args:
            data: The token's bytes; empty for a special token.
            may_stop: False while the choice must go on (`min_tokens`): a stop string
                that is complete now is then ordinary text.
        """
        text = self._decoder.decode(data)
        if not self._stop:
            return text
        self._pending += text
        return self._release(may_stop)

    def _release(self, may_stop: bool) -> str:
        found = [(at, stop) for stop in self._stop if (at := self._pending.find(stop)) >= 0]
        if found and may_stop:
            # Of two that begin at the same place the shorter was complete first.
            at, self.stop = min(found, key=lambda match: (match[0], len(match[1])))
            text, self._pending = self._pending[:at], ""
            return text
        if found:
            cut = max(at + len(stop) for at, stop in found)
        else:
            cut = len(self._pending) - held_back(self._pending, self._stop)
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return text

    def flush(self) -> str:
        """Ends the text and returns what was held back."""
        text, self._pending = self._pending + self._decoder.decode(b"", final=True), ""
        return "" if self.stop is not None else text
