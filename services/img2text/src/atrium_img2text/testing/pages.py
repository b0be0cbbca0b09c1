"""Pages with known text: what the tests of reading compare with, and how they compare.

Six pages are rendered here with the box of every word; the tests of the engines, of the
service and of the suite read them. Needs the font DejaVu (`scripts/test_tools.sh`) and jiwer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jiwer
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atrium_common.images import Pixels
from atrium_img2text.reading import Box, Page, PageImage, PageLayout

SANS, SANS_BOLD, SERIF = "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf"
NOISE_SEED = 7

PROSE = (
    "The harbour lay quiet when the first boats came home. Their nets were heavy with silver\n"
    "fish, and gulls followed every one of them, crying for their share of the morning's work.\n"
    "\n"
    "On the pier an old man was mending a sail. He had been at sea for forty years and knew\n"
    "each rock between here and the lighthouse. Nobody asked him about the weather any more;\n"
    "they looked at how he held his needle. If he worked fast, rain would fall before noon.\n"
    "\n"
    "Today he worked very slowly. The sky above the hills was clear, and the wind turned to\n"
    "the south, warm and steady. By ten o'clock the market was full of people: cooks with\n"
    "baskets, children with coins in their hands, and two painters who argued over the exact\n"
    "colour of the water. Was it green, or grey, or was it only the shadow of a cloud?"
)
GERMAN = (
    "Die Bäckerei an der Königstraße öffnet täglich um halb sieben. Schon früh\n"
    "am Morgen hört man das Rühren der großen Schüsseln, und der Duft von\n"
    "Brötchen zieht über die Dächer. Frau Müller grüßt jeden Gast mit Namen.\n"
    "\n"
    "Für das Straßenfest im Frühling plant sie etwas Außergewöhnliches: süße\n"
    "Küchlein mit Äpfeln, Nüssen und Gewürzen. Ihre Söhne müssen dafür die\n"
    "Öfen prüfen, während die Töchter Körbe füllen. Übrig bleibt selten etwas,\n"
    "denn die Nachbarn können nicht widerstehen. Am Abend schließt sie müde,\n"
    "aber glücklich die Tür und zählt die Münzen."
)
NOTICE = (
    "Notice to all visitors of the museum\n"
    "\n"
    "The northern hall is closed for repair until the end of\n"
    "October. Guided tours start at the main gate every hour.\n"
    "Please leave large bags at the counter and keep your ticket\n"
    "until you leave the building. Photographs are welcome, but\n"
    "without flash. Thank you for helping us to protect old paper."
)
REPORT = (
    "Report of the water station for the month of June\n"
    "\n"
    "The level of the river rose by twelve centimetres after the\n"
    "storm of the ninth and fell again within four days. Three\n"
    "pumps were running during that time, the fourth was kept in\n"
    "reserve. All filters have been changed as planned.\n"
    "\n"
    "Samples were taken on each Monday at six in the morning.\n"
    "None of them exceeded the limits for iron or nitrate. The\n"
    "new sensor at the lower bridge still shows values which are\n"
    "too high and will be replaced next week."
)
_INVOICE: Sequence[tuple[int, Sequence[tuple[int, str]]]] = (
    (60, ((60, "Northwind Paper Supplies"),)),
    (95, ((60, "14 Mill Lane, Bristol"),)),
    (165, ((60, "Invoice 2024-0817"), (620, "Date: 12 March 2024"))),
    (200, ((60, "Customer 50913"), (620, "Due: 11 April 2024"))),
    (280, ((60, "Item"), (420, "Quantity"), (580, "Price"), (740, "Amount"))),
    (325, ((60, "Copy paper, white"), (420, "40"), (580, "4.75"), (740, "190.00"))),
    (365, ((60, "Envelopes, large"), (420, "250"), (580, "0.18"), (740, "45.00"))),
    (405, ((60, "Ink cartridge, black"), (420, "6"), (580, "32.60"), (740, "195.60"))),
    (445, ((60, "Desk calendar"), (420, "12"), (580, "8.95"), (740, "107.40"))),
    (485, ((60, "Delivery"), (420, "1"), (580, "14.50"), (740, "14.50"))),
    (560, ((580, "Subtotal"), (740, "552.50"))),
    (600, ((580, "Tax 20%"), (740, "110.50"))),
    (640, ((580, "Total"), (740, "663.00"))),
    (720, ((60, "Please pay within 30 days. Thank you for your order."),)),
)
"""Baselines of the invoice in pixels from above, and on each what begins at which column."""


@dataclass(frozen=True, slots=True)
class TrueWord:
    """A word as it was drawn, and the box of its ink."""

    text: str
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RenderedPage:
    """A page whose text is known.

    Attributes:
        name: Which page.
        pixels: Shape (height, width, 3).
        words: In reading order.
        text: Lines divided by newlines, paragraphs by empty lines.
        language: Shortest ISO 639 code.
        layout: The one by which its lines are in this order.
        rotation: Degrees to turn it clockwise for it to stand upright, -180 to 180.
    """

    name: str
    pixels: Pixels
    words: Sequence[TrueWord]
    text: str
    language: str = "en"
    layout: PageLayout = PageLayout.AUTO
    rotation: float = 0.0

    def image(self, number: int = 1) -> PageImage:
        """Returns the page as an engine takes it."""
        return PageImage(number=number, pixels=self.pixels)


def invoice() -> RenderedPage:
    """Columns and numbers, 22 px. Its rows are read across by the layout of a single column."""
    canvas = _Canvas(940, 780)
    lines = []
    for y, cells in _INVOICE:
        for x, text in cells:
            canvas.write(text, x, y, SANS_BOLD if y in (60, 280) else SANS, 22)
        lines.append(" ".join(text for _, text in cells))
    page = canvas.page("invoice", "\n".join(lines))
    return replace(page, layout=PageLayout.SINGLE_COLUMN)


def prose() -> RenderedPage:
    """English at 14 px, the size of a screen's text."""
    return _set("prose", PROSE, font=SANS, size=14)


def german() -> RenderedPage:
    """German with umlauts and sharp s, 20 px, with serifs."""
    return replace(_set("german", GERMAN, font=SERIF, size=20), language="de")


def noisy() -> RenderedPage:
    """Grey paper with the grain of a poor scan, 24 px."""
    clean = _set("noisy", NOTICE, font=SANS, size=24)
    random = np.random.default_rng(NOISE_SEED)
    grain = random.normal(0.0, 28.0, clean.pixels.shape[:2])[..., np.newaxis]
    grey = 40.0 + clean.pixels * (175.0 / 255.0) + grain
    return replace(clean, pixels=np.clip(grey, 0, 255).astype(np.uint8))


def skewed() -> RenderedPage:
    """Laid on the scanner 3 degrees off, clockwise."""
    return turned(_set("skewed", REPORT, font=SANS, size=22), 3.0)


def sideways() -> RenderedPage:
    """Turned clockwise by a quarter."""
    return turned(_set("sideways", REPORT, font=SERIF, size=22), 90.0)


RENDERERS: Mapping[str, Callable[[], RenderedPage]] = {
    "invoice": invoice,
    "prose": prose,
    "german": german,
    "noisy": noisy,
    "skewed": skewed,
    "sideways": sideways,
}
"""The six pages by name."""


def two_pages() -> tuple[RenderedPage, RenderedPage]:
    """A document of two pages: prose, then the invoice."""
    return prose(), invoice()


def turned(page: RenderedPage, degrees: float) -> RenderedPage:
    """Turns an upright page clockwise, on paper that grows to hold it.

    Boxes become those around the turned ones.
    """
    image = Image.fromarray(page.pixels)
    rotated = image.rotate(
        -degrees, resample=Image.Resampling.BICUBIC, expand=True, fillcolor="white"
    )
    words = [
        TrueWord(word.text, _turned_box(word.box, degrees, image.size, rotated.size))
        for word in page.words
    ]
    return replace(page, pixels=np.asarray(rotated), words=words, rotation=-degrees)


def character_error_rate(expected: str, read: str) -> float:
    """Returns the edits per expected character, 0 or more; all white space counts as one space."""
    rate: float = jiwer.cer(" ".join(expected.split()), " ".join(read.split()))
    return rate


def overlap(one: Box, other: Box) -> float:
    """Returns the intersection over the union of two boxes, 0 to 1."""
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    shared = max(0, width) * max(0, height)
    return shared / (one.width * one.height + other.width * other.height - shared)


def share_of_words_found(truth: RenderedPage, page: Page, *, least: float = 0.5) -> float:
    """Returns the share of true words that were read as they are, in a box that covers them.

    Args:
        truth: What is on the page.
        page: What was read.
        least: Overlap with the true box that counts as covering, 0 to 1.
    """
    read = [word for line in page.lines for word in line.words]
    found = [
        any(word.text == true.text and overlap(word.box, true.box) >= least for word in read)
        for true in truth.words
    ]
    return sum(found) / len(found)


class _Canvas:
    """White paper on which words are written one by one."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width, height), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._words: list[TrueWord] = []

    def write(self, text: str, x: float, baseline: int, font: str, size: int) -> float:
        """Writes a line from `x` on; returns where it ends."""
        face = ImageFont.truetype(font, size)
        space = face.getlength(" ")
        for word in text.split():
            left, top, right, bottom = self._draw.textbbox((x, baseline), word, face, "ls")
            box = Box(int(left), int(top), math.ceil(right - left), math.ceil(bottom - top))
            self._words.append(TrueWord(word, box))
            self._draw.text((x, baseline), word, "black", face, "ls")
            x += face.getlength(word) + space
        return x

    def page(self, name: str, text: str) -> RenderedPage:
        """Returns what was written."""
        return RenderedPage(
            name=name, pixels=np.asarray(self._image), words=tuple(self._words), text=text
        )


def _set(name: str, text: str, *, font: str, size: int) -> RenderedPage:
    """Sets lines below each other on paper with a margin of three lines."""
    lines = text.split("\n")
    face = ImageFont.truetype(font, size)
    margin, leading = 3 * size, round(1.6 * size)
    width = math.ceil(max(face.getlength(line) for line in lines)) + 2 * margin
    canvas = _Canvas(width, leading * len(lines) + 2 * margin)
    for number, line in enumerate(lines):
        canvas.write(line, margin, margin + leading * number + size, font, size)
    return canvas.page(name, text)


def _turned_box(box: Box, degrees: float, before: tuple[int, int], after: tuple[int, int]) -> Box:
    """Returns the box around a box that is turned clockwise about the middle of its page."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    corners = [
        (x - before[0] / 2, y - before[1] / 2)
        for x in (box.x, box.x + box.width)
        for y in (box.y, box.y + box.height)
    ]
    xs = [x * cosine - y * sine + after[0] / 2 for x, y in corners]
    ys = [x * sine + y * cosine + after[1] / 2 for x, y in corners]
    left, top = round(min(xs)), round(min(ys))
    return Box(left, top, round(max(xs)) - left, round(max(ys)) - top)
