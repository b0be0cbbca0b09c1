"""The voices that come with XTTS-v2, known before its weights are loaded. The engine lists them.

Names are those of `speakers_xtts.pth`; genders are as the voices are heard. Each voice speaks
every language of the model.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from atrium_tts.domain import Gender

_FEMALE = """
Claribel Dervla, Daisy Studious, Gracie Wise, Tammie Ema, Alison Dietlinde, Ana Florence,
Annmarie Nele, Asya Anara, Brenda Stern, Gitta Nikolina, Henriette Usha, Sofia Hellen,
Tammy Grit, Tanja Adelina, Vjollca Johnnie, Nova Hogarth, Maja Ruoho, Uta Obando,
Lidiya Szekeres, Chandra MacFarland, Szofi Granger, Camilla Holmström, Lilya Stainthorpe,
Zofija Kendrick, Narelle Moon, Barbora MacLean, Alexandra Hisakawa, Alma María,
Rosemary Okafor, Ige Behringer
"""
_MALE = """
Andrew Chipper, Badr Odhiambo, Dionisio Schuyler, Royston Min, Viktor Eka, Abrahan Mack,
Adde Michal, Baldur Sanjin, Craig Gutsy, Damien Black, Gilberto Mathias, Ilkin Urbano,
Kazuhiko Atallah, Ludvig Milivoj, Suad Qasim, Torcull Diarmuid, Viktor Menelaos,
Zacharie Aimilios, Filip Traverse, Damjan Chapman, Wulf Carlevaro, Aaron Dreschner,
Kumar Dahl, Eugenio Mataracı, Ferran Simen, Xavier Hayasaka, Luis Moray, Marcos Rudaski
"""  # noqa: RUF001 - his name

ALIASES: Mapping[str, str] = {
    "alloy": "ana-florence",
    "ash": "craig-gutsy",
    "ballad": "damien-black",
    "coral": "daisy-studious",
    "echo": "andrew-chipper",
    "fable": "royston-min",
    "nova": "nova-hogarth",
    "onyx": "viktor-menelaos",
    "sage": "gracie-wise",
    "shimmer": "claribel-dervla",
    "verse": "luis-moray",
    "marin": "alison-dietlinde",
    "cedar": "aaron-dreschner",
}
"""OpenAI's voice names -> ids of ours."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """One voice of the file. `name` is its key there, `id` what selects it."""

    name: str
    gender: Gender

    @property
    def id(self) -> str:
        """Of a-z, 0-9 and ``-``, e.g. ``"ana-florence"``."""
        # NFKD takes accents off; the Turkish dotless i is a letter of its own.
        plain = unicodedata.normalize(
            "NFKD", self.name.replace("\N{LATIN SMALL LETTER DOTLESS I}", "i")
        )
        return re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode().lower()).strip(
            "-"
        )

    @property
    def aliases(self) -> tuple[str, ...]:
        """OpenAI's names for it."""
        return tuple(alias for alias, meant in ALIASES.items() if meant == self.id)


def _read(names: str, gender: Gender) -> list[Speaker]:
    return [Speaker(" ".join(name.split()), gender) for name in names.split(",")]


SPEAKERS: tuple[Speaker, ...] = (*_read(_FEMALE, Gender.FEMALE), *_read(_MALE, Gender.MALE))
"""All 58; the first is the default."""


def speakers_of(names: Iterable[str]) -> tuple[Speaker, ...]:
    """Returns the speakers of a loaded file, in its order; one we do not know has no gender."""
    known = {speaker.name: speaker for speaker in SPEAKERS}
    return tuple(known.get(name) or Speaker(name, Gender.UNKNOWN) for name in names)
