"""Protobuf <-> domain, and validation: every field is honoured or refused by name.

The servicer calls these; beside it, nothing else in the service touches protobuf.

    checks.py   what fields are refused for
    orders.py   configs to orders
    uploads.py  parts of uploads
    results.py  what was seen and read, to the wire
"""

from atrium_img2text.convert.orders import (
    Resolve,
    analysis_from_proto,
    description_from_proto,
    extraction_from_proto,
    question_from_proto,
)
from atrium_img2text.convert.results import (
    analysis_to_proto,
    answer_to_proto,
    description_to_proto,
    extraction_to_proto,
)
from atrium_img2text.convert.uploads import UploadRequest, part_from_proto

__all__ = [
    "Resolve",
    "UploadRequest",
    "analysis_from_proto",
    "analysis_to_proto",
    "answer_to_proto",
    "description_from_proto",
    "description_to_proto",
    "extraction_from_proto",
    "extraction_to_proto",
    "part_from_proto",
    "question_from_proto",
]
