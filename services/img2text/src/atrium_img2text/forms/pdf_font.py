"""The font of a PDF's invisible text: one glyph that stands for every character.

`pdf.py` numbers the characters of a document as they come; at its end, the font says which
number is which character, so that programs can read, search and copy the text.

Source: ISO 32000-1, 9.7 and 9.10; the tables are those of the OpenType specification.
"""

import struct

from atrium_img2text.forms.pdf_file import PdfFile

UNITS_PER_EM = 1000
ADVANCE = 500
"""Width of the glyph."""

_MAX_CODES = 0xFFFF
_REPLACEMENT = "\ufffd"
_BLOCK = 100
"""Most entries of one block of a character map."""


class InvisibleFont:
    """Numbers characters, and writes the font that has them."""

    def __init__(self) -> None:
        """Starts with no characters but U+FFFD, which stands for those there is no room for."""
        self._codes = {_REPLACEMENT: 1}

    def encode(self, text: str) -> str:
        """Returns the codes of a text, two bytes each, in hexadecimal."""
        return "".join(f"{self._code(character):04X}" for character in text)

    def write(self, file: PdfFile, number: int) -> None:
        """Writes the font as object `number`."""
        program = _true_type()
        program_number = file.write_stream(program, f"/Length1 {len(program)}")
        # Every code is the one glyph.
        glyphs = file.write_stream(struct.pack(">H", 1) * (len(self._codes) + 1))
        characters = file.write_stream(self._character_map().encode("ascii"))
        descriptor = file.write(
            "<< /Type /FontDescriptor /FontName /Invisible /Flags 4 "
            f"/FontBBox [0 0 {ADVANCE} {UNITS_PER_EM}] /ItalicAngle 0 /Ascent {UNITS_PER_EM} "
            f"/Descent 0 /CapHeight {UNITS_PER_EM} /StemV 80 /FontFile2 {program_number} 0 R >>"
        )
        descendant = file.write(
            "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Invisible "
            "/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> "
            f"/FontDescriptor {descriptor} 0 R /DW {ADVANCE} /CIDToGIDMap {glyphs} 0 R >>"
        )
        file.write(
            "<< /Type /Font /Subtype /Type0 /BaseFont /Invisible /Encoding /Identity-H "
            f"/DescendantFonts [{descendant} 0 R] /ToUnicode {characters} 0 R >>",
            number,
        )

    def _code(self, character: str) -> int:
        code = self._codes.get(character)
        if code is None:
            if len(self._codes) == _MAX_CODES:
                return self._codes[_REPLACEMENT]
            code = self._codes[character] = len(self._codes) + 1
        return code

    def _character_map(self) -> str:
        """Says which character each code is."""
        entries = [
            f"<{code:04X}> <{character.encode('utf-16-be').hex().upper()}>"
            for character, code in self._codes.items()
        ]
        starts = range(0, len(entries), _BLOCK)
        mapped = [entries[start : start + _BLOCK] for start in starts]
        lines = [
            "/CIDInit /ProcSet findresource begin 12 dict begin begincmap",
            "/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def",
            "/CMapName /Adobe-Identity-UCS def /CMapType 2 def",
            "1 begincodespacerange <0000> <FFFF> endcodespacerange",
        ]
        for block in mapped:
            lines += [f"{len(block)} beginbfchar", *block, "endbfchar"]
        lines.append("endcmap CMapName currentdict /CMap defineresource pop end end")
        return "\n".join(lines)


def _true_type() -> bytes:
    """Makes the font program: glyph 0, for what is missing, and glyph 1, alike."""
    box = (0, 0, ADVANCE, UNITS_PER_EM)
    glyph = _glyph(*box)
    no_date = 0
    tables = {
        b"glyf": glyph,
        b"head": struct.pack(
            ">IIIIHHQQ4hHHhhh",
            *(0x00010000, 0x00010000, 0, 0x5F0F3CF5, 0, UNITS_PER_EM),
            *(no_date, no_date, *box, 0, 8, 2, 0, 0),
        ),
        b"hhea": struct.pack(
            ">I3hH11hH",
            *(0x00010000, UNITS_PER_EM, 0, 0, ADVANCE),
            *(0, 0, ADVANCE, 1, 0, 0, 0, 0, 0, 0, 0, 2),
        ),
        b"hmtx": struct.pack(">HhHh", ADVANCE, 0, ADVANCE, 0),
        b"loca": struct.pack(">3H", 0, 0, len(glyph) // 2),
        b"maxp": struct.pack(">I14H", 0x00010000, 2, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0),
    }
    return _assembled(tables)


def _glyph(left: int, lower: int, right: int, upper: int) -> bytes:
    """Makes the outline: a line there and back from corner to corner.

    Its box is the whole cell, so that programs mark what a reader selects, and it has no
    area, so that one that draws invisible text all the same draws nothing.
    """
    on_curve = 1
    outline = struct.pack(">h4h", 1, left, lower, right, upper)
    outline += struct.pack(">HH2B", 1, 0, on_curve, on_curve)
    outline += struct.pack(">4h", left, right - left, lower, upper - lower)
    return outline + bytes(-len(outline) % 4)


def _assembled(tables: dict[bytes, bytes]) -> bytes:
    """Puts tables, in alphabetical order, behind a directory of them."""
    count = len(tables)
    power = count.bit_length() - 1
    search = 16 << power
    head = struct.pack(">IHHHH", 0x00010000, count, search, power, 16 * count - search)
    offset = len(head) + 16 * count
    directory, body = b"", b""
    for tag, table in tables.items():
        padded = table + bytes(-len(table) % 4)
        checksum = sum(struct.unpack(f">{len(padded) // 4}I", padded)) & 0xFFFFFFFF
        directory += struct.pack(">4sIII", tag, checksum, offset + len(body), len(table))
        body += padded
    return head + directory + body
