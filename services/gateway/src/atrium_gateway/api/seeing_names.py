"""Errors of the img2text service under the names that the parameters have over REST."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from atrium_common.errors import AtriumError, MediaError, TooLarge

_PATH = re.compile(
    r"(?:config\.)?(?:(?P<part>description|extraction|questions)(?:\[(?P<number>\d+)\])?\.)?"
    r"(?:sampling\.)?(?P<name>.*)",
    re.DOTALL,
)
_UPLOAD = frozenset({"chunk", "end", "image", "document"})


@dataclass(frozen=True, slots=True)
class Names:
    """How one request named what the service names its own way.

    Attributes:
        picture: The parameter that the picture came in.
        renamed: Parameters by the service's name, or by its name within a part of an
            analysis (``"extraction.model"``); ``{}`` stands for a question's number.
    """

    picture: str
    renamed: Mapping[str, str]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block whose errors are renamed."""
        try:
            yield
        except AtriumError as err:
            err.field = self.of(err)
            raise

    def of(self, error: AtriumError) -> str | None:
        """Says which parameter an error means."""
        if isinstance(error, MediaError | TooLarge):
            return self.picture
        found = _PATH.fullmatch(error.field or "")
        if not error.field or not found:
            return error.field
        part, name = found["part"], found["name"]
        if name in _UPLOAD:
            return self.picture
        renamed = self.renamed.get(f"{part}.{name}") or self.renamed.get(name, name)
        return renamed.replace("{}", found["number"] or "0")
