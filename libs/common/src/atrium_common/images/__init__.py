"""Picture files to pixels and back, bounded in bytes and pixels; needs the extra ``images``.

`img2img` reads the pictures that it edits and their masks with it, `img2text` those that it
describes and reads; both picture services write what they drew. Nothing here blocks on
anything but the processor: call it in a thread.

    decode.py      an upload to pixels, or a refusal by name
    sniff.py       which format an upload is in, by its first bytes
    tiff.py        the pages of a TIFF, found and bounded before it is decoded
    jpeg.py        how much work a JPEG asks for, before it is done
    colour.py      any mode and profile to sRGB and transparency
    orientation.py how a photo was held
    mask.py        an upload to what is drawn anew
    resize.py      which size a picture gets, and giving it
    encode.py      pixels to a file
"""

from atrium_common.images.decode import ImageLimits, Picture, read_bytes, read_picture
from atrium_common.images.encode import encode, encode_within
from atrium_common.images.mask import read_mask, soften
from atrium_common.images.pixels import Mask, Pixels, Size, size_of
from atrium_common.images.resize import (
    ResizeMode,
    SizeBounds,
    resize_mask,
    resize_picture,
    target_size,
)
from atrium_common.images.sniff import EVERY, TAKEN, name_format
from atrium_common.images.tiff import count_tiff_pages

__all__ = [
    "EVERY",
    "TAKEN",
    "ImageLimits",
    "Mask",
    "Picture",
    "Pixels",
    "ResizeMode",
    "Size",
    "SizeBounds",
    "count_tiff_pages",
    "encode",
    "encode_within",
    "name_format",
    "read_bytes",
    "read_mask",
    "read_picture",
    "resize_mask",
    "resize_picture",
    "size_of",
    "soften",
    "target_size",
]
