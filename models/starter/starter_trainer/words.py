"""The tokenizer of the starter models: CLIP's byte-pair encoding over a small vocabulary."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from atrium_diffusion.testing.clip_tokenizer import END, START, WORD_END, byte_tokens

_WORD = re.compile("[a-z]+")


def learn_merges(corpus: Iterable[str]) -> list[tuple[str, str]]:
    """Learns which pieces are joined, most frequent first, until each word is one piece.

    The same corpus gives the same merges: a resumed training relies on it.
    """
    counts = Counter(word for text in corpus for word in _WORD.findall(text.lower()))
    words = {word: [*word[:-1], word[-1] + WORD_END] for word in counts}
    merges: list[tuple[str, str]] = []
    while True:
        tally: Counter[tuple[str, str]] = Counter()
        for word, pieces in words.items():
            for pair in pairwise(pieces):
                tally[pair] += counts[word]
        if not tally:
            return merges
        merges.append(max(tally, key=lambda pair: (tally[pair], pair)))
        words = {word: _joined(pieces, merges[-1]) for word, pieces in words.items()}


def _joined(pieces: Sequence[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def make_tokenizer(corpus: Iterable[str], *, window: int) -> CLIPTokenizer:
    """Makes the tokenizer of a corpus.

    Args:
        corpus: Captions.
        window: Tokens that the text encoders take, first and last mark included.
    """
    merges = learn_merges(corpus)
    pieces = [*byte_tokens(), *(left + right for left, right in merges), START, END]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
        (Path(folder) / "merges.txt").write_text("\n".join(lines) + "\n")
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=window)
    return tokenizer


def token_ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids, shape (texts, window), padded and cut as diffusers does."""
    encoded = tokenizer(
        list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True
    )
    return torch.tensor(encoded["input_ids"])
