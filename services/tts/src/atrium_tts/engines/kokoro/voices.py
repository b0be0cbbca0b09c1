"""The voices of Kokoro-82M v1.0, in the order in which they follow each other in `voices.bin`.

`engine.py` lists them. Gender and language stand in the first two letters of an id. The
first voice listed for a language is its default: the makers' own best, by their grades.
"""

from collections.abc import Iterator, Mapping

from atrium_tts.domain import Gender, Voice

_LICENSE = "Apache-2.0"
_LANGUAGES: Mapping[str, str] = {
    "a": "en-us",
    "b": "en-gb",
    "e": "es",
    "f": "fr-fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-br",
    "z": "zh",
}
_GENDERS: Mapping[str, Gender] = {"f": Gender.FEMALE, "m": Gender.MALE}

FILE_ORDER = tuple(
    """
    af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah
    af_sky am_adam am_echo am_eric am_fenrir am_liam am_michael am_onyx am_puck am_santa
    bf_alice bf_emma bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis
    ef_dora em_alex em_santa ff_siwis hf_alpha hf_beta hm_omega hm_psi if_sara im_nicola
    jf_alpha jf_gongitsune jf_nezumi jf_tebukuro jm_kumo pf_dora pm_alex pm_santa
    zf_xiaobei zf_xiaoni zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang
    """.split()  # noqa: SIM905  # a list of strings would be 54 lines
)
"""Ids in alphabetical order, as `voices.bin` was joined."""

_DEFAULTS = ("af_heart", "bf_emma", "ef_dora", "ff_siwis", "hf_alpha", "if_sara", "pf_dora")

_ALIASES: Mapping[str, tuple[str, ...]] = {
    "af_alloy": ("alloy",),
    "af_heart": ("marin",),
    "af_bella": ("coral",),
    "af_nova": ("nova",),
    "af_sarah": ("shimmer",),
    "af_aoede": ("sage",),
    "am_michael": ("ash",),
    "am_echo": ("echo",),
    "am_fenrir": ("verse",),
    "am_onyx": ("onyx",),
    "am_puck": ("cedar",),
    "bm_fable": ("fable",),
    "bm_george": ("ballad",),
}
"""OpenAI's thirteen names: the voice of the same name, else one of the same kind."""


def voices(models: tuple[str, ...], languages: frozenset[str]) -> Iterator[Voice]:
    """Yields the voices whose own language is one of `languages`, defaults first.

    Args:
        models: Catalogue ids that speak with them.
        languages: BCP 47, of those that `phonemes.py` knows.
    """
    others = (name for name in FILE_ORDER if name not in _DEFAULTS)
    for name in (*_DEFAULTS, *others):
        language = _LANGUAGES[name[0]]
        if language in languages:
            yield Voice(
                id=name,
                name=name.partition("_")[2].capitalize(),
                models=models,
                languages=(language,),
                gender=_GENDERS[name[1]],
                license=_LICENSE,
                aliases=_ALIASES.get(name, ()),
            )
