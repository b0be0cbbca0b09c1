"""What the catalogue says of a fake model; see `engines/fake.py`."""

from pydantic import Field

from atrium_common.engine_options import EngineOptions
from atrium_img2text.reading import PageLayout


class FakeOptions(EngineOptions):
    """Options of a fake model in the catalogue."""

    prefill_seconds: float = Field(default=0.0, ge=0)
    """Time before the first event of a description or answer."""

    tokens_per_step: int = Field(default=1, ge=1)
    """Tokens of each text that one step makes."""

    seconds_per_step: float = Field(default=0.0, ge=0)
    """Pace of descriptions and answers; 0 makes them as fast as it can."""

    seconds_per_page: float = Field(default=0.0, ge=0)
    """Time to read a page."""

    page_limit_seconds: float = Field(default=60.0, gt=0)
    """Longest time that a page may take."""

    languages: tuple[str, ...] = Field(default=("deu", "eng", "fra"), min_length=1)
    """What it reads, ISO 639-3."""

    layouts: tuple[PageLayout, ...] = tuple(PageLayout)
    """Layouts that it offers."""

    slots: int = Field(default=16, ge=1)
    """Texts and pages at once; the largest of the engine's models counts."""
