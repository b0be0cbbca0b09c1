"""Which way round and in which languages a page is read: as few readings as it takes.

Most pages stand upright and are read once. What was read tells that it was the right way:
on rendered pages, upright words had a mean confidence of 0.75 and more even in the wrong
one of two languages with Latin letters, upside-down words 0.48 and less. So letters are
asked which way up they are (OSD) only where a reading did not convince: that takes as long
as a reading, and on text of 14 pixels it was wrong or unsure.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from atrium_common.work import CancelToken
from atrium_img2text.engines.ocr.identify import LanguageIdentifier
from atrium_img2text.engines.ocr.lean import level
from atrium_img2text.engines.ocr.recognizer import FoundWord, Orientation, Recognizer
from atrium_img2text.engines.ocr.scripts import join_words, script_of_language
from atrium_img2text.engines.ocr.tessdata import Tessdata
from atrium_img2text.engines.ocr.upright import Grey, View
from atrium_img2text.reading import ReadingOrder

CONVINCING = 0.6
"""Mean confidence, by letters, from which on a page was read the right way."""
SURE_OF_ORIENTATION = 5.0
"""Confidence from which on letters are believed which way up they are; on rendered pages
they were right from 9 on, and wrong below 4."""

_BETTER = 1.02
"""How much more another language must make of a page to be taken for its own."""
_LONG = 3
"""Letters from which on a word that lies is wider than high."""
_STANDING_WORTH = 0.8
_ORIENTATION_SIDES = 1200, 3000
"""Letters of smaller pages are enlarged before they are asked, those of larger ones reduced."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What was read of a view, in these languages (ISO 639-3)."""

    view: View
    languages: Sequence[str]
    words: Sequence[FoundWord]

    @property
    def amount(self) -> float:
        """How much was read: letters by the square of their confidence, so that a few sure
        ones outweigh many guesses. Words that stand count less than words that lie."""
        letters = sum(len(word.text) * word.confidence**2 for word in self.words)
        return letters * (_STANDING_WORTH if self.stands else 1.0)

    @property
    def sureness(self) -> float:
        """Mean confidence by letters, 0 to 1; 0 for a page without words."""
        letters = sum(len(word.text) for word in self.words)
        sure = sum(len(word.text) * word.confidence for word in self.words)
        return sure / letters if letters else 0.0

    @property
    def convinces(self) -> bool:
        """Whether Tesseract read it the right way; a page without words is not."""
        return self.sureness >= CONVINCING and not self.stands

    @property
    def stands(self) -> bool:
        """Whether most words are higher than wide: Tesseract reads standing lines, too."""
        long = [word for word in self.words if len(word.text) >= _LONG]
        standing = sum(word.bottom - word.top > word.right - word.left for word in long)
        return standing > len(long) / 2

    @property
    def text(self) -> str:
        """Its words."""
        return join_words([word.text for word in self.words])


class PageReader:
    """Reads pages with one recognizer, in one thread."""

    def __init__(
        self,
        recognizer: Recognizer,
        tessdata: Tessdata,
        identifier: LanguageIdentifier,
        *,
        first_language: str,
        clock: Callable[[], float],
    ) -> None:
        """Takes what it reads with.

        Args:
            recognizer: Reads upright pictures.
            tessdata: Which languages it knows.
            identifier: Tells languages apart.
            first_language: In which a page of unknown language is read first; installed.
            clock: Monotonic seconds.
        """
        self.recognizer = recognizer
        self._tessdata = tessdata
        self._identifier = identifier
        self._first_language = first_language
        self._clock = clock

    def read(
        self, view: View, order: ReadingOrder, *, seconds: float, token: CancelToken
    ) -> Reading:
        """Reads a page as it lies, upright and in its language.

        Raises:
            TimeoutError: All of it took longer than `seconds`.
            Cancelled: The token was cancelled; noticed between readings.
        """
        attempts = _Attempts(
            self.recognizer, self._tessdata, order, self._clock, self._clock() + seconds, token
        )
        upright = level(view) if order.correct_orientation else view
        best = attempts.read(upright, order.languages or (self._first_language,))
        if not best.convinces and (best.words or upright is not view):
            best = self._other_ways(best, view, attempts)
        if best.words and not order.languages:
            best = self._own_language(best, attempts)
        return best

    def _other_ways(self, best: Reading, as_it_lies: View, attempts: "_Attempts") -> Reading:
        """Reads other views, and in the languages of their letters, until that convinces."""
        for view, languages in self._ways(best, as_it_lies, attempts):
            best = max(best, attempts.read(view, languages), key=_amount)
            if best.convinces:
                break
        return best

    def _ways(
        self, first: Reading, as_it_lies: View, attempts: "_Attempts"
    ) -> Iterator[tuple[View, Sequence[str]]]:
        """Gives what else may be tried: by the letters, turned, and as the page lies."""
        languages, order = first.languages, attempts.order
        asked = self._tessdata.knows_orientation and attempts.orientation(first.view)
        if asked and asked.confidence >= SURE_OF_ORIENTATION:
            if not order.languages:
                languages = self._of_script(asked.script) or languages
            turn = asked.turn if order.correct_orientation else 0
            if turn or languages != first.languages:
                yield first.view.turned(turn), languages
        if order.correct_orientation:
            for turn in (-90, 90) if first.stands else (180,):
                yield first.view.turned(turn), languages
            if first.view is not as_it_lies:
                yield as_it_lies, languages

    def _own_language(self, best: Reading, attempts: "_Attempts") -> Reading:
        """Reads again in the language that the text is in, if that is another and better."""
        script = script_of_language(best.languages[0])
        among = [code for code in self._tessdata.languages if script_of_language(code) == script]
        likeliest = self._identifier.likeliest(best.text, among) if len(among) > 1 else None
        if likeliest is None or likeliest == best.languages[0]:
            return best
        again = attempts.read(best.view, (likeliest,))
        return again if again.amount > _BETTER * best.amount else best

    def _of_script(self, script: str) -> Sequence[str]:
        """Returns the language to begin with for letters of a script; none if there is none."""
        if script == script_of_language(self._first_language):
            return (self._first_language,)
        able = (code for code in self._tessdata.languages if script_of_language(code) == script)
        return tuple(able)[:1]


@dataclass(frozen=True, slots=True, eq=False)
class _Attempts:
    """Reads one page until its time is over."""

    recognizer: Recognizer
    tessdata: Tessdata
    order: ReadingOrder
    clock: Callable[[], float]
    end: float
    token: CancelToken

    def read(self, view: View, languages: Sequence[str]) -> Reading:
        """Reads a view."""
        words = self.recognizer.read(
            view.grey,
            languages=self.tessdata.joined(languages),
            layout=self.order.layout,
            resolution=view.resolution,
            seconds=self._left(),
        )
        return Reading(view=view, languages=tuple(languages), words=words)

    def orientation(self, view: View) -> Orientation | None:
        """Asks the letters of a view which way up they are."""
        return self.recognizer.orientation(_fit(view.grey), seconds=self._left())

    def _left(self) -> float:
        self.token.raise_if_cancelled()
        left = self.end - self.clock()
        if left <= 0:
            raise TimeoutError("the page took too long")
        return left


def _amount(reading: Reading) -> float:
    return reading.amount


def _fit(grey: Grey) -> Grey:
    """Scales a picture so that its letters can be told, and in little time."""
    image = Image.fromarray(grey)
    small, large = _ORIENTATION_SIDES
    if max(image.size) < small:
        image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.BICUBIC)
    image.thumbnail((large, large), Image.Resampling.BOX)
    return np.asarray(image)
