"""From tokens to text that is whole: no half characters, no space around it.

Every row of a batch has one; it is told of each token as it is chosen.
"""

from collections.abc import Callable, Sequence

_HALF = "\N{REPLACEMENT CHARACTER}"
"""What tokenizers decode the first bytes of a character to, while the others are missing."""


class TextWriter:
    """The text of one row as it grows.

    Only the newest tokens are decoded again, with those before them as their context:
    what a token reads as may depend on its neighbour, not on all that was said.

    Attributes:
        text: All that was given out so far.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """Takes the model's way from tokens to text."""
        self._decode = decode
        self._window: list[int] = []
        self._read = 0
        self._space = ""
        self.text = ""

    def push(self, token: int) -> str:
        """Adds a token and returns the text that is whole now, often none."""
        self._window.append(token)
        return self._grow(last=False)

    def finish(self) -> str:
        """Ends the text and returns what was held back."""
        return self._grow(last=True)

    def _grow(self, *, last: bool) -> str:
        known = self._decode(self._window[: self._read])
        now = self._decode(self._window)
        if len(now) <= len(known) or (now.endswith(_HALF) and not last):
            return ""
        self._window = self._window[self._read :]
        self._read = len(self._window)
        return self._trim(now[len(known) :])

    def _trim(self, more: str) -> str:
        """Drops space before the first word; holds space back until a word follows it."""
        text = self._space + more if self.text else more.lstrip()
        words = text.rstrip()
        self._space = text[len(words) :] if words or self.text else ""
        self.text += words
        return words
