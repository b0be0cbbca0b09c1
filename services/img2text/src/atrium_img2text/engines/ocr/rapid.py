"""RapidOCR's networks (PP-OCR by onnxruntime): one finds lines, one reads them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from rapidocr import RapidOCR
from rapidocr.utils.output import RapidOCROutput
from rapidocr.utils.process_img import ResizeImgError

from atrium_img2text.engines.ocr.recognizer import FoundWord
from atrium_img2text.engines.ocr.upright import Grey

DETECTION, RECOGNITION = "det.onnx", "rec.onnx"
"""Files of a model; the second one holds its characters."""

_Word = tuple[str, float, Sequence[tuple[float, float]] | None]
"""Text, confidence, and four corners."""

_SIDE = 8
"""Pixels; what is smaller holds no text, and the library can't scale it."""


class RapidRecognizer:
    """Reads grey pictures, whatever the language; used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Loads the networks of a folder, to run on one thread of the processor."""
        self._engine = _Engine(
            params={
                "Global.log_level": "critical",
                "Global.text_score": 0.0,
                "Global.use_cls": False,
                "Global.return_word_box": True,
                "Det.model_path": str(folder / DETECTION),
                "Rec.model_path": str(folder / RECOGNITION),
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )
        self._steps = self._engine.watched()

    def read(self, grey: Grey, check: Callable[[], None]) -> Sequence[FoundWord]:
        """Reads what is there, from above to below.

        Args:
            grey: The picture.
            check: Called between lines; what it raises ends the reading.
        """
        if min(grey.shape) < _SIDE:
            return ()
        for step in self._steps:
            step.check = check
        try:
            found = self._engine(np.repeat(grey[..., np.newaxis], 3, axis=2))
        except ResizeImgError:
            return ()  # too long and thin
        return list(_words(found, grey)) if isinstance(found, RapidOCROutput) else ()


class _Engine(RapidOCR):
    """The library's pipeline, which keeps unsure lines and can be broken off."""

    def filter_by_text_score(self, ocr_res: RapidOCROutput) -> RapidOCROutput:
        """Keeps all; the library's own fails where a line has no words."""
        return ocr_res

    def watched(self) -> Sequence["_Step"]:
        """Loads the networks, and puts a step before each."""
        load = self._load_det_model, self._load_rec_model
        return [_Step(part()) for part in load]  # type: ignore[no-untyped-call]


class _Step:
    """Stands before a network, so that work can be broken off between its runs."""

    def __init__(self, part: object) -> None:
        """Takes the place of the part's session."""
        self.check: Callable[[], None] = lambda: None
        self._session = part.session  # type: ignore[attr-defined]
        part.session = self  # type: ignore[attr-defined]

    def __call__(self, batch: object) -> object:
        self.check()
        return self._session(batch)


def _words(found: RapidOCROutput, grey: Grey) -> Iterator[FoundWord]:
    for number, line in enumerate(_lines(found)):
        for text, confidence, corners in line:
            if not text.strip() or corners is None:
                continue
            xs, ys = [x for x, _ in corners], [y for _, y in corners]
            left, top, right, bottom = _trimmed(grey, min(xs), min(ys), max(xs), max(ys))
            yield FoundWord(
                text=text.strip(),
                left=left,
                top=top,
                right=right,
                bottom=bottom,
                confidence=min(max(float(confidence), 0.0), 1.0),
                line=number,
            )


def _trimmed(
    grey: Grey, left: float, top: float, right: float, bottom: float
) -> tuple[int, int, int, int]:
    """Returns the part of a word's rectangle that holds ink: as found, it is as high as its line.

    Rows and columns count that have more than a speck.
    """
    x, y = max(0, int(left)), max(0, int(top))
    part = grey[y : int(bottom) + 1, x : int(right) + 1].astype(np.int16)
    if part.size:
        contrast = np.abs(part - np.median(part))
        ink = contrast > max(24.0, float(contrast.max()) / 2)
        rows, columns = (np.flatnonzero(ink.sum(axis) > 1) for axis in (1, 0))
        if rows.size and columns.size:
            return (
                x + int(columns[0]),
                y + int(rows[0]),
                x + int(columns[-1]) + 1,
                y + int(rows[-1]) + 1,
            )
    return int(left), int(top), int(right), int(bottom)


def _lines(found: RapidOCROutput) -> Iterable[Iterable[_Word]]:
    """Returns the words of each line, or each line as a word where those could not be told."""
    if found.boxes is None or found.txts is None or found.scores is None:
        return ()
    lines: Sequence[object] = found.word_results or ()
    if lines and all(isinstance(line, tuple) for line in lines):
        return cast("Sequence[Sequence[_Word]]", lines)
    return ([word] for word in zip(found.txts, found.scores, found.boxes.tolist(), strict=True))
