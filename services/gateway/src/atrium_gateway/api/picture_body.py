"""JSON with files in it, which become base64 only while they leave.

Sixteen pictures of four megapixels are some 200 MB: held once, as bytes, and let go one by
one as they are sent. `exchange.py` and `events.py` send what `pieces` gives.
"""

from binascii import b2a_base64
from collections import deque
from collections.abc import Iterator

_SLICE = 48 << 10
"""Bytes that become one piece of 64 KiB; a multiple of three, so that pieces join."""
_ENOUGH = 16 << 10
"""Short text waits for more, so that it is not a packet of its own."""


class JsonBody:
    """A JSON document that is put together from encoded text and files."""

    def __init__(self) -> None:
        self._parts: deque[tuple[bytes | bytearray, bool]] = deque()
        self.size = 0

    def text(self, encoded: bytes) -> None:
        """Appends JSON as it is."""
        self._parts.append((encoded, False))
        self.size += len(encoded)

    def with_file(self, name: str, data: bytes | bytearray, encoded: bytes) -> None:
        """Appends an object that gets one more member, the file as a string in base64.

        Args:
            name: Of the member; it comes first.
            data: The file; not copied.
            encoded: The object without it; it has other members.
        """
        self.text(b'{"%b":"' % name.encode())
        self._parts.append((data, True))
        self.size += -(-len(data) // 3) * 4
        self.text(b'",' + encoded[1:])

    def pieces(self) -> Iterator[bytes]:
        """Gives the document, once; what was given is let go."""
        held = bytearray()
        while self._parts:
            data, is_file = self._parts.popleft()
            if not is_file:
                held += data
                continue
            view = memoryview(data)
            for start in range(0, len(view), _SLICE):
                held += b2a_base64(view[start : start + _SLICE], newline=False)
                if len(held) >= _ENOUGH:
                    yield bytes(held)
                    held.clear()
            view.release()
        if held:
            yield bytes(held)
