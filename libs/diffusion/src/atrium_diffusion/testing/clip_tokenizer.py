"""CLIP's tokenizer with a small vocabulary: the same files, layout and order of tokens.

`tiny_sdxl.py` writes it; the starter model's trainer takes its marks and characters.
"""

import json
from collections.abc import Iterator
from pathlib import Path

_WORDS = ("a", "red", "green", "blue", "yellow", "circle", "square", "star", "two", "three", "of")
START, END = "<|startoftext|>", "<|endoftext|>"
"""Tokens that mark the first and the last place of a text."""
WORD_END = "</w>"
"""Ends the last piece of a word."""


def byte_tokens() -> list[str]:
    """The first 512 tokens of every vocabulary: each byte within a word, then at its end.

    A byte is written as one character, as GPT-2 and CLIP do: the printable ones stand for
    themselves and come first, the others take the code points from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = range(0x100, 0x100 + 256 - len(printable))
    characters = [chr(code) for code in (*printable, *others)]
    return [*characters, *(character + WORD_END for character in characters)]


def _merges() -> Iterator[tuple[str, str]]:
    """What joins the characters of a word, from left to right."""
    for word in _WORDS:
        pieces = [*word[:-1], word[-1] + WORD_END]
        joined = pieces[0]
        for piece in pieces[1:]:
            yield joined, piece
            joined += piece


MERGES = tuple(dict.fromkeys(_merges()))
"""Pairs that become one token, the first first."""

TOKENS = tuple(
    dict.fromkeys(
        [
            *byte_tokens(),
            *(left + right for left, right in MERGES),
            START,
            END,
        ]
    )
)
"""The vocabulary by id; the end token is the last, which CLIP's pooling relies on."""


def write_tokenizer(folder: Path, *, pad_token: str) -> None:
    """Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.

    Args:
        folder: Where they go; it is created.
        pad_token: Fills the window of 77; SDXL's two tokenizers differ in it.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def special(token: str) -> dict[str, object]:
        return {
            "content": token,
            "lstrip": False,
            "normalized": True,
            "rstrip": False,
            "single_word": False,
        }

    named = {"bos_token": special(START), "eos_token": special(END), "unk_token": special(END)}
    config = {
        "add_prefix_space": False,
        **{name: {"__type": "AddedToken", **token} for name, token in named.items()},
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": pad_token,
        "tokenizer_class": "CLIPTokenizer",
    }
    vocabulary = {token: number for number, token in enumerate(TOKENS)}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    _write(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    _write(folder / "merges.txt", "\n".join(merges))
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2))
    _write(
        folder / "special_tokens_map.json", json.dumps(named | {"pad_token": pad_token}, indent=2)
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
