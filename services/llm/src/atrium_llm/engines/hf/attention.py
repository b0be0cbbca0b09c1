"""Attention over a packed batch of sequences that each own their keys and values.

The model's forward sees one row of tokens: the next token of every running sequence and
pieces of prompts, one after the other. Each sequence attends to its own cache only, so
there is no padding, no mask over strangers, and no copy of the cache per step. The loop
passes a `Segments` to the model's forward, which hands it through to `ragged_attention`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

IMPLEMENTATION = "atrium_ragged"
BLOCK = 64
"""A cache grows by whole blocks of this many tokens."""


def blocks(tokens: int) -> int:
    """Rounds a number of tokens up to whole blocks, in tokens."""
    return -(-tokens // BLOCK) * BLOCK


class KeyValues:
    """Keys and values of one sequence, one tensor ``[2, heads, capacity, dim]`` per layer.

    Attributes:
        length: Tokens stored.
        capacity: Tokens that it has room for.
    """

    def __init__(self, layers: int) -> None:
        """Makes an empty cache; tensors appear with the first tokens."""
        self._layers: list[Tensor | None] = [None] * layers
        self.length = 0
        self.capacity = 0

    def append(self, layer: int, states: Tensor) -> Tensor:
        """Stores ``[2, heads, tokens, dim]`` behind `length`; returns all so far."""
        stored = self._layers[layer]
        end = self.length + states.shape[2]
        if stored is None or stored.shape[2] < end:
            stored = self._grow(layer, states)
        stored[:, :, self.length : end] = states
        return stored[:, :, :end]

    def _grow(self, layer: int, states: Tensor) -> Tensor:
        shape = (2, states.shape[1], self.capacity, states.shape[3])
        grown = states.new_empty(shape)
        stored = self._layers[layer]
        if stored is not None:
            grown[:, :, : self.length] = stored[:, :, : self.length]
        self._layers[layer] = grown
        return grown

    def fork(self) -> "KeyValues":
        """Copies the cache for another choice of the same prompt."""
        other = KeyValues(len(self._layers))
        other.length, other.capacity = self.length, self.capacity
        other._layers = [None if stored is None else stored.clone() for stored in self._layers]
        return other


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens ``[start, end)`` of the packed row, and the cache that they go on from."""

    start: int
    end: int
    cache: KeyValues


Segments = Sequence[Segment]


def ragged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    segments: Segments = (),
    **options: object,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, ``[1, heads, tokens, dim]`` each.

    Returns:
        ``[1, tokens, heads, dim]``; no weights.

    Raises:
        NotImplementedError: The model wants something that plain attention lacks.
    """
    if options.get("softcap") is not None or options.get("s_aux") is not None:
        raise NotImplementedError("attention with soft caps or sinks")
    layer: int = module.layer_idx  # type: ignore[assignment]
    heads, tokens, dim = query.shape[1:]
    states = torch.stack((key[0], value[0]))
    out = query.new_empty((1, tokens, heads, dim))
    for part in segments:
        seen = part.cache.append(layer, states[:, :, part.start : part.end])
        if part.end - part.start == 1:
            _one(query, part, seen, out, scaling, sliding_window)
        else:
            _many(query, part, seen, out, scaling, sliding_window)
    return out, None


def _one(
    query: Tensor,
    part: Segment,
    seen: Tensor,
    out: Tensor,
    scaling: float | None,
    window: int | None,
) -> None:
    """One new token sees everything: no mask, and query heads of a group share a batch row."""
    if window is not None:
        seen = seen[:, :, -window:]
    kv_heads, dim = seen.shape[1], query.shape[3]
    grouped = query[:, :, part.start].reshape(1, kv_heads, -1, dim)
    answer = F.scaled_dot_product_attention(grouped, seen[:1], seen[1:], scale=scaling)
    out[:, part.start] = answer.reshape(1, -1, dim)


def _many(
    query: Tensor,
    part: Segment,
    seen: Tensor,
    out: Tensor,
    scaling: float | None,
    window: int | None,
) -> None:
    """A piece of a prompt: causal behind what is stored already."""
    tokens, total = part.end - part.start, seen.shape[2]
    repeat = query.shape[1] // seen.shape[1]
    seen = seen.repeat_interleave(repeat, dim=1) if repeat > 1 else seen
    mask: Tensor | None = None
    if tokens != total or window is not None:
        mask = torch.ones(tokens, total, dtype=torch.bool, device=query.device)
        mask = mask.tril(total - tokens)
        if window is not None:
            mask = mask.triu(total - tokens - window + 1)
    answer = F.scaled_dot_product_attention(
        query[:, :, part.start : part.end],
        seen[:1],
        seen[1:],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
    )
    out[:, part.start : part.end] = answer.transpose(1, 2)


def register() -> None:
    """Makes the implementation known to transformers under `IMPLEMENTATION`."""
    AttentionInterface.register(IMPLEMENTATION, ragged_attention)
