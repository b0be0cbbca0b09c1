"""How a photo was held, read from its metadata, and bringing it upright.

`decode.py` calls this. Only the one tag is read: a picture whose metadata is damaged, or has
no orientation that exists, is taken as it lies, as browsers do.
"""

import struct
from collections.abc import Callable

import numpy as np

from atrium_common.images.pixels import Alpha, Pixels

UPRIGHT = 1

_PREFIX = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TAG, _SHORT = 0x0112, 3
_ENTRY_BYTES = 12

# What is done to rows and columns, by the EXIF orientation.
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: np.fliplr,
    3: lambda laid: np.rot90(laid, 2),
    4: np.flipud,
    5: lambda laid: laid.swapaxes(0, 1),
    6: lambda laid: np.rot90(laid, -1),
    7: lambda laid: np.rot90(laid, 2).swapaxes(0, 1),
    8: np.rot90,
}


def read_orientation(exif: object) -> int:
    """Reads the orientation, 1 to 8, from a block of EXIF; anything else is `UPRIGHT`."""
    if not isinstance(exif, bytes):
        return UPRIGHT
    block = exif.removeprefix(_PREFIX)
    order = _BYTE_ORDERS.get(block[:4])
    if order is None:
        return UPRIGHT
    try:
        (position,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, position)
        for number in range(entries):
            entry = position + 2 + number * _ENTRY_BYTES
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, entry)
            if tag == _TAG:
                return value if kind == _SHORT and value in _TURNS else UPRIGHT
    except struct.error:
        pass  # it ends too early
    return UPRIGHT


def turn_upright(laid: Pixels | Alpha, orientation: int) -> Pixels | Alpha:
    """Turns rows and columns of a picture, or of its transparency."""
    turn = _TURNS.get(orientation)
    return laid if turn is None else np.ascontiguousarray(turn(laid))
