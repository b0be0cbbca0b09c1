"""The repository's Markdown, read as a reader meets it: links, headings, code."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.M | re.S)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)[ #]*$", re.M)


@dataclass(frozen=True)
class Page:
    """One Markdown file.

    Attributes:
        path: Where it is.
    """

    path: Path

    @property
    def name(self) -> str:
        """Its path from the root, for messages and test ids."""
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text()

    @cached_property
    def prose(self) -> str:
        """All of it but fenced code."""
        return _FENCE.sub("", self.text)

    @cached_property
    def links(self) -> list[str]:
        """Targets of its links; what stands in code is none."""
        return _LINK.findall(_SPAN.sub("", self.prose))

    @cached_property
    def anchors(self) -> set[str]:
        """What its headings are called in links, as code hosts make it."""
        seen: Counter[str] = Counter()
        found = set()
        for heading in _HEADING.findall(self.prose):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
        return found

    @cached_property
    def code(self) -> list[str]:
        """Its lines of fenced code, with continued ones joined, and its code spans."""
        fenced = "\n".join(match.group(0) for match in _FENCE.finditer(self.text))
        lines = fenced.replace("\\\n", " ").splitlines()
        return [*lines, *_SPAN.findall(self.prose)]


def pages() -> list[Page]:
    """Every Markdown file of the repository that is written by us."""
    folders = ("docs", "services", "libs", "models", "deploy", "examples", "tests")
    found = [
        *ROOT.glob("*.md"),
        *(file for name in folders for file in (ROOT / name).rglob("*.md")),
    ]
    return [Page(file) for file in sorted(found) if "node_modules" not in file.parts]
