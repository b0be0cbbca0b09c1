"""Which languages Tesseract has data files of, by their ISO codes."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

SUFFIX = ".traineddata"
ORIENTATION_DATA = "osd"

_NO_LANGUAGE = {"equ", ORIENTATION_DATA}
_CHINESE = {"chi_sim": "zho", "chi_tra": "zho"}


class Tessdata:
    """The data files of one model, in one folder, as Tesseract wants them.

    Files of the same name are taken from the folder that comes first.

    Attributes:
        folder: Where the files are, or links to them.
        languages: ISO 639-3 codes, sorted.
        knows_orientation: Whether letters of any script can be told and which way up.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Looks into the folders.

        Args:
            folders: One or more; files of several are linked into a temporary one.

        Raises:
            OSError: A folder can't be read.
        """
        files: dict[str, Path] = {}
        for folder in folders:
            for file in sorted(folder.iterdir()):
                if file.name.endswith(SUFFIX):
                    files.setdefault(file.name.removesuffix(SUFFIX), file)
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self.folder = folders[0]
        if len(folders) > 1:
            self._links = tempfile.TemporaryDirectory(prefix="atrium-tessdata-")
            self.folder = Path(self._links.name)
            for name, file in files.items():
                (self.folder / f"{name}{SUFFIX}").symlink_to(file.absolute())
        self._names = _by_code(files)
        self.languages: Sequence[str] = tuple(sorted(self._names))
        self.knows_orientation = ORIENTATION_DATA in files

    def joined(self, languages: Sequence[str]) -> str:
        """Returns what Tesseract calls these languages, all of which are installed."""
        return "+".join(name for code in languages for name in self._names[code])

    def close(self) -> None:
        """Removes the temporary folder, if there is one."""
        if self._links is not None:
            self._links.cleanup()
            self._links = None


def _by_code(files: Mapping[str, Path]) -> Mapping[str, Sequence[str]]:
    """Groups data files by language. Variants (old letters, vertical lines) stand for none."""
    names: dict[str, list[str]] = {}
    for name in sorted(files.keys() - _NO_LANGUAGE):
        code = _CHINESE.get(name, name)
        if len(code) == 3 and code.isascii() and code.isalpha() and code.islower():
            names.setdefault(code, []).append(name)
    return MappingProxyType(names)
