"""Stable words: they only grow, and only by what two drafts agree on."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_stt.engines.spelling import repetition, split_words
from atrium_stt.live.agreement import LocalAgreement


def test_words_become_stable_when_two_drafts_agree_and_another_follows() -> None:
    agreement = LocalAgreement()
    agreement.add([" The", " library."])
    assert (agreement.stable, agreement.tentative) == ("", " The library.")
    agreement.add([" The", " library", " opens"])
    assert (agreement.stable, agreement.tentative) == (" The library", " opens")
    agreement.add([" closes"])
    assert (agreement.stable, agreement.tentative) == (" The library", " closes")
    agreement.add([])
    assert (agreement.stable, agreement.tentative) == (" The library", "")


@given(st.lists(st.lists(st.sampled_from([" a", " b", " c,", " C"]), max_size=6), max_size=12))
def test_stable_text_only_grows(drafts: list[list[str]]) -> None:
    agreement, seen = LocalAgreement(), [""]
    for draft in drafts:
        agreement.add(draft)
        seen.append(agreement.stable)
    assert all(after.startswith(before) for before, after in itertools.pairwise(seen))


@given(st.text(alphabet="ab ,.", max_size=30))
def test_split_words_give_the_text_back(text: str) -> None:
    for language in ("en", "zh"):
        assert "".join(split_words(text, language)) == text.rstrip()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("one two three four", None),
        ("say it again, and say it once more", None),
        ("Press four to send. Press four to send.", 4),
        ("Press four to send, press four to", None),
        ("no no no no no no", 1),
    ],
)
def test_a_text_that_says_itself_again_is_found(text: str, place: int | None) -> None:
    assert repetition(text.split()) == place
