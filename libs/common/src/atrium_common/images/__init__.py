"""Picture files to pixels and back, bounded in bytes and pixels; needs the extra ``images``.

`img2img` reads the pictures that it edits and their masks with it, both picture services
write what they drew. Nothing here blocks on anything but the processor: call it in a thread.

    decode.py      an upload to pixels, or a refusal by name
    sniff.py       which format an upload is in, by its first bytes
    jpeg.py        how much work a JPEG asks for, before it is done
    colour.py      any mode and profile to sRGB and transparency
    orientation.py how a photo was held
    mask.py        an upload to what is drawn anew
    resize.py      which size a picture gets, and giving it
    encode.py      pixels to a file
"""

from atrium_common.images.decode import ImageLimits, Picture, read_picture
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

__all__ = [
    "ImageLimits",
    "Mask",
    "Picture",
    "Pixels",
    "ResizeMode",
    "Size",
    "SizeBounds",
    "encode",
    "encode_within",
    "read_mask",
    "read_picture",
    "resize_mask",
    "resize_picture",
    "size_of",
    "soften",
    "target_size",
]
