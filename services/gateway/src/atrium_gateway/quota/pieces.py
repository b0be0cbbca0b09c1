"""What a reservation took of each counter, piece by piece, and what becomes of the pieces.

A reservation that grows takes further pieces, perhaps in a later window; each is settled
where it was taken. Every store keeps these.
"""

from collections.abc import Iterator, Sequence

import msgspec


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """An amount that was taken of one counter.

    Attributes:
        meter: Index of its meter in the reservation.
        mark: Where the counter put it.
        amount: Internal counts.
    """

    meter: int
    mark: int
    amount: int


def growth(pieces: Sequence[Piece], amounts: Sequence[int]) -> list[int]:
    """What is still missing to hold `amounts` in all; 0 where enough is held."""
    missing = list(amounts)
    for piece in pieces:
        if piece.meter < len(missing):
            missing[piece.meter] -= piece.amount
    return [max(amount, 0) for amount in missing]


def spread(pieces: Sequence[Piece], amounts: Sequence[int]) -> Iterator[tuple[Piece, int]]:
    """Spreads what was consumed over the pieces in order; the last one takes any excess.

    Args:
        pieces: Of a reservation, in the order in which they were taken.
        amounts: Consumed in all, by meter; pieces of a later meter stay as they are.

    Yields:
        Each piece that changes, and by how much.
    """
    left = list(amounts)
    last = {piece.meter: number for number, piece in enumerate(pieces)}
    for number, piece in enumerate(pieces):
        if piece.meter >= len(left):
            continue
        rest = left[piece.meter]
        part = rest if last[piece.meter] == number else min(rest, piece.amount)
        left[piece.meter] -= part
        if part != piece.amount:
            yield piece, part - piece.amount
