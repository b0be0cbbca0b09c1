"""The input of one forward: pieces of many sequences in one row. The loop makes it."""

from collections.abc import Sequence
from dataclasses import dataclass

from atrium_llm.engines.hf.attention import Segment, Segments
from atrium_llm.engines.hf.scheduler import Piece


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Input of one forward: all pieces in one row.

    Attributes:
        ids: Token ids.
        positions: Position of each in its own sequence.
        segments: Where each sequence lies in the row.
        wanted: Places in the row whose logits are wanted.
    """

    ids: list[int]
    positions: list[int]
    segments: Segments
    wanted: list[int]


def pack(pieces: Sequence[Piece]) -> PackedBatch:
    """Joins the next tokens of every piece."""
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    wanted: list[int] = []
    for piece in pieces:
        cache = piece.choice.cache
        start, behind = len(ids), cache.length
        ids += piece.choice.tokens[behind : behind + piece.count]
        positions += range(behind, behind + piece.count)
        segments.append(Segment(start, len(ids), cache))
        if piece.completes:
            wanted.append(len(ids) - 1)
    return PackedBatch(ids, positions, segments, wanted)
