"""The files of a checkpoint: found by name, checked before a library reads them.

`loading.py` and `lora_files.py` use it. Nothing but safetensors and JSON is ever read.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from atrium_common.weights import WeightsError

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def bad(path: Path, problem: str, *, reason: str = "BAD_FILE") -> WeightsError:
    """Makes the error about a file: one line that names it."""
    return WeightsError(" ".join(f"{path}: {problem}".split()), reason=reason)


def read_json(path: Path) -> dict[str, object]:
    """Reads a configuration file.

    Raises:
        WeightsError: It is missing, or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise bad(path, "is missing", reason="MISSING_FILE") from error
    except (OSError, ValueError) as error:
        raise bad(path, f"can't be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise bad(path, "holds no JSON object")
    return content


@dataclass(frozen=True, slots=True)
class Weights:
    """A component's weights: one file, or the index of its parts; which variant it is."""

    path: Path
    variant: str | None


def find_weights(
    folder: Path, stem: str, variant: str | None, *, or_plain: bool = False
) -> Weights:
    """Finds a component's weights, whole or in parts, and sees that they can be read.

    Args:
        folder: Of the component.
        stem: How the library names the file, e.g. ``"model"``.
        variant: E.g. ``"fp16"``: the file is then ``"model.fp16.safetensors"``.
        or_plain: Take the files without a variant where there are none with it.

    Raises:
        WeightsError: It is missing, is a pickle, or is damaged.
    """
    if or_plain and not list(folder.glob(f"{stem}*.{variant}.*")):
        variant = None
    marked = f".{variant}" if variant else ""
    whole = folder / f"{stem}{marked}.safetensors"
    index = folder / f"{stem}.safetensors.index{marked}.json"
    if not whole.is_file() and index.is_file():
        parts = read_json(index).get("weight_map")
        if not isinstance(parts, dict):
            raise bad(index, "has no weight_map")
        for name in sorted({Path(str(part)).name for part in parts.values()}):
            check_safetensors(folder / name)
        return Weights(index, variant)
    check_safetensors(whole)
    return Weights(whole, variant)


def check_safetensors(path: Path) -> None:
    """Sees that a file is there and is what its name says; reads its head alone.

    Raises:
        WeightsError: It is missing (and says if a pickle stands in its place), or damaged.
    """
    if not path.is_file():
        pickles = sorted(p.name for p in path.parent.glob("*") if p.suffix in _PICKLES)
        told = f"is missing; {pickles[0]} is a pickle, and never read" if pickles else "is missing"
        raise bad(path, told, reason="MISSING_FILE")
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise bad(path, f"is no safetensors file ({error})") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Keeps transformers from drawing progress into a service's log meanwhile."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
