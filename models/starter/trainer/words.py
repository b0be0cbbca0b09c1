"""The tokenizer of the starter models: CLIP's byte-pair encoding over a small vocabulary."""

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_MOST_MERGES = 600
_PRINTED = (range(33, 127), range(161, 173), range(174, 256))
"""Bytes that stand for themselves in a vocabulary; the others take places above 255."""


def byte_alphabet() -> list[str]:
    """One printable character for each of the 256 bytes, as GPT-2 and CLIP map them."""
    printed = [byte for each in _PRINTED for byte in each]
    others = len(set(range(256)) - set(printed))
    return [chr(byte) for byte in printed] + [chr(256 + place) for place in range(others)]


def learn_merges(corpus: Iterable[str]) -> list[tuple[str, str]]:
    """Learns which pieces are joined, most frequent first; whole words of the corpus result."""
    alphabet = byte_alphabet()
    learner = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=2 * len(alphabet) + _MOST_MERGES,
            end_of_word_suffix=_WORD_END,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def make_tokenizer(corpus: Iterable[str], *, window: int) -> CLIPTokenizer:
    """Makes the tokenizer of a corpus.

    Args:
        corpus: Captions.
        window: Tokens that the text encoders take, first and last mark included.
    """
    merges = learn_merges(corpus)
    letters = byte_alphabet()
    pieces = [*letters, *(letter + _WORD_END for letter in letters)]
    pieces += [left + right for left, right in merges]
    vocabulary = {
        piece: number for number, piece in enumerate(dict.fromkeys([*pieces, BEGIN, END]))
    }
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
