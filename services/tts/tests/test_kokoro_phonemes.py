"""What Kokoro is given to read: symbols it knows, punctuation kept, never too many at once."""

# ruff: noqa: RUF001  # phonemes resemble letters

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_common.errors import InvalidArgument
from atrium_tts.engines.kokoro.espeak import Espeak
from atrium_tts.engines.kokoro.phonemes import (
    ESPEAK_VOICES,
    MOST,
    VOCABULARY,
    numbers,
    phonemes,
    pieces,
)

CRASHES_ESPEAK = "\ua826\u020a\U000144b8"
"""Read as Hindi; found by random tries with espeak-ng 1.52."""


@pytest.fixture(scope="module")
def espeak() -> Iterator[Espeak]:
    opened = Espeak()
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("language", "text", "sounds"),
    [
        ("en-us", "The quick brown fox, jumps!", "ðə kwˈɪk bɹˈWn fˈɑks, ʤˈʌmps!"),
        ("en-us", "He paid 3.5 of 10,000.", "hi pˈAd θɹˈi pYnt fˈIv ʌv tˈɛn θˈWzənd."),
        ("en-us", "Dr. Smith: “Go home” — now...", "dˈɑktəɹ smˈɪθ: “ɡˌO hˈOm” — nˈW…"),
        ("en-us", "A better\nbutton?", "ə bˈɛTəɹ bˈʌtᵊn?"),
        ("en-gb", "Go home near the bird.", "ɡˌQ hˈQm nˌɪə ðə bˈɜːd."),
        ("es", "¿Cómo estás, amigo?", "kˈomo estˈas, amˈiɣo?"),
        ("fr-fr", "C'est le weekend.", "sɛ lə wiːkˈɛnd."),
        ("hi", "मौसम अच्छा है।", "mˈɔːsəm ˈʌcʰcʰaː hɛː."),
    ],
)
def test_words_sound_and_marks_stay(espeak: Espeak, language: str, text: str, sounds: str) -> None:
    assert phonemes(text, language, espeak) == sounds


@pytest.mark.parametrize("text", ["", "...!?", " — ", "\u0000\u0007", "“ ”"])
def test_nothing_sounds_in_punctuation(espeak: Espeak, text: str) -> None:
    assert phonemes(text, "en-us", espeak) == ""


def test_a_text_that_crashes_espeak_is_refused_and_the_next_is_read(espeak: Espeak) -> None:
    with pytest.raises(InvalidArgument) as caught:
        phonemes(CRASHES_ESPEAK, "hi", espeak)
    assert caught.value.field == "text"
    assert phonemes("yes", "en-us", espeak) == "jˈɛs"


@given(text=st.text(max_size=60), language=st.sampled_from([*ESPEAK_VOICES]))
def test_whatever_is_written_gives_known_symbols(espeak: Espeak, text: str, language: str) -> None:
    try:
        symbols = phonemes(text, language, espeak)
    except InvalidArgument:  # such as the text above
        return
    assert all(1 <= number <= 177 for number in numbers(symbols))


@given(
    st.lists(st.sampled_from(["a", "bcd", "efghi", ". ", ", ", " "]), max_size=1500),
    st.integers(8, MOST),
)
def test_cuts_lose_nothing_and_keep_the_limit(parts: list[str], most: int) -> None:
    symbols = "".join(parts)
    cut = pieces(symbols, most)
    assert all(0 < len(piece) <= most for piece in cut)
    assert "".join("".join(cut).split()) == "".join(symbols.split())


def test_a_cut_falls_behind_a_sentence_else_a_clause_else_a_word() -> None:
    assert pieces("aa bb, cc. dd, ee ff gg", 16) == ["aa bb, cc.", "dd, ee ff gg"]
    assert pieces("aa bb cc, dd ee ff gg", 16) == ["aa bb cc,", "dd ee ff gg"]
    assert pieces("aa bb cc dd ee ff", 10) == ["aa bb cc", "dd ee ff"]
    assert pieces("a" * 20, 10) == ["a" * 10, "a" * 10]


def test_each_symbol_has_its_own_number() -> None:
    assert len(VOCABULARY) == len(set(VOCABULARY.values())) == 114
