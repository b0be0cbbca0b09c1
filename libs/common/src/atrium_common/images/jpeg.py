"""How often a JPEG makes its decoder pass over the whole picture, found without decoding.

A progressive file refines the picture scan by scan. A scan may be twenty bytes long and
costs a pass over every block, so a small file can ask for hours of work; libjpeg sets no
limit. `decode.py` refuses such files.
"""

import re

MAX_SCANS = 100
"""More than any camera or editor writes (about ten)."""

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
# In a scan's data a marker's first byte is followed by 0 (a plain byte), by a restart
# number, or by a marker that ends the data.
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")


def count_scans(data: bytes) -> int:
    """Counts the scans of the first picture in a JPEG file, up to `MAX_SCANS` + 1.

    A damaged file is counted as far as it makes sense.
    """
    scans, position = 0, 2
    while scans <= MAX_SCANS and (found := _MARKER.search(data, position)):
        marker, position = data[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:
            break
        if marker in _STANDALONE:
            continue
        scans += marker == _START_OF_SCAN
        position += int.from_bytes(data[position : position + 2], "big")
    return scans
