"""Objects of a PDF, written one after the other into a file, so that none stays in memory.

`pdf.py` uses it. Source: ISO 32000-1, 7.3 and 7.5.
"""

import zlib
from typing import BinaryIO

_HEADER = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
_FREE, _USED = b"0000000000 65535 f \n", b"%010d 00000 n \n"


class PdfFile:
    """Numbers objects, writes them and knows where they are."""

    def __init__(self, file: BinaryIO) -> None:
        """Writes to `file`, which stands at its beginning."""
        self._file = file
        self._offsets: list[int] = []

    def begin(self) -> None:
        """Writes the header."""
        self._file.write(_HEADER)

    def reserve(self) -> int:
        """Returns the number of an object that is written later."""
        self._offsets.append(0)
        return len(self._offsets)

    def write(self, body: str, number: int | None = None) -> int:
        """Writes an object, as the one that was reserved or a new one; returns its number."""
        return self._object(body.encode("ascii"), number)

    def write_stream(
        self, data: bytes, facts: str = "", *, packed: bool = True, number: int | None = None
    ) -> int:
        """Writes a stream.

        Args:
            data: What is in it.
            facts: Entries of its dictionary beside those of its length and packing.
            packed: Whether it is to be deflated; a JPEG is not.
            number: As for `write`.
        """
        if packed:
            data, facts = zlib.compress(data), f"/Filter /FlateDecode {facts}"
        head = f"<< {facts} /Length {len(data)} >>\nstream\n".encode("ascii")
        return self._object(head + data + b"\nendstream", number)

    def end(self, *, root: int, info: int) -> None:
        """Writes where everything is."""
        start = self._file.tell()
        count = len(self._offsets) + 1
        table = [_FREE, *(_USED % offset for offset in self._offsets)]
        trailer = f"trailer\n<< /Size {count} /Root {root} 0 R /Info {info} 0 R >>\n"
        self._file.write(b"xref\n0 %d\n" % count + b"".join(table))
        self._file.write(f"{trailer}startxref\n{start}\n%%EOF\n".encode("ascii"))

    def _object(self, body: bytes, number: int | None) -> int:
        number = number or self.reserve()
        self._offsets[number - 1] = self._file.tell()
        self._file.write(b"%d 0 obj\n%b\nendobj\n" % (number, body))
        return number
