"""Cues that can be read, from segments of any length: nothing lost, nothing twice, in order."""

import io
import time
import unicodedata
from datetime import timedelta
from itertools import pairwise

import srt
import webvtt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atrium_gateway.api import subtitles
from atrium_gateway.api.cues import LINE_COLUMNS, LONGEST, Cue, make_cues
from atrium_gateway.upstreams.speech import Segment, Word

MILLISECOND = timedelta(milliseconds=1)


def segment(text: str, start: float, end: float, words: list[Word] | None = None) -> Segment:
    return Segment(
        index=0,
        start=timedelta(seconds=start),
        end=timedelta(seconds=end),
        text=text,
        words=words or (),
        average_logprob=0.0,
        no_speech_probability=0.0,
        compression_ratio=1.0,
        temperature=0.0,
        tokens=(),
        seek=0,
    )


def spoken(text: str, *, start: float = 0.0, pace: float = 0.4) -> Segment:
    """A segment of `text` whose words take `pace` seconds each."""
    words = [
        Word(
            start=timedelta(seconds=start + number * pace),
            end=timedelta(seconds=start + number * pace + pace),
            text=f" {word}",
            probability=1.0,
        )
        for number, word in enumerate(text.split())
    ]
    return segment(f" {text}", start, start + len(words) * pace, words)


def texts(segments: list[Segment]) -> list[str]:
    return [cue.text for cue in make_cues(segments)]


def letters(text: str) -> str:
    return "".join(text.split())


LETTERS = st.characters(
    codec="utf-8",
    categories=["L", "N", "P", "S", "Mn"],
    include_characters=" \n\t",
)


@st.composite
def transcripts(draw: st.DrawFn) -> list[Segment]:
    """Segments as odd as a model may give them: times that jump back, words without text."""
    segments = []
    moment = 0.0
    for _ in range(draw(st.integers(0, 4))):
        begun, words = moment, []
        for _ in range(draw(st.integers(0, 40))):
            start = max(0.0, moment + draw(st.floats(-0.3, 2.0)))
            moment = start + draw(st.floats(0.0, 3.0))
            text = draw(st.sampled_from(["", " "])) + draw(
                st.one_of(
                    st.text(st.sampled_from("ab.,?漢字。-'"), max_size=12),
                    st.text(LETTERS, max_size=50),
                )
            )
            words.append(
                Word(
                    start=timedelta(seconds=start),
                    end=timedelta(seconds=moment),
                    text=text,
                    probability=0.5,
                )
            )
        text = "".join(word.text for word in words)
        known = draw(st.sampled_from([words, words, []]))
        segments.append(segment(text, begun, moment, known))
    return segments


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(transcripts())
def test_every_word_is_in_one_cue_at_its_time_and_cues_can_be_read(
    segments: list[Segment],
) -> None:
    cues = list(make_cues(segments))
    whole = "".join(segment.text for segment in segments)
    assert letters("".join(cue.text for cue in cues)) == letters(whole)
    for cue in cues:
        assert MILLISECOND <= cue.end - cue.start <= LONGEST
        lines = cue.text.split("\n")
        assert len(lines) <= 2
        assert all(line and line == line.strip() for line in lines)
        for line in lines:
            columns = sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in line)
            assert columns <= LINE_COLUMNS or len(lines) == 1
    assert all(before.end <= after.start for before, after in pairwise(cues))


@given(st.lists(st.text("abc.,?", min_size=1, max_size=15), min_size=1, max_size=80))
def test_both_formats_are_read_back_whole(words: list[str]) -> None:
    cues = list(make_cues([spoken(" ".join(words))]))
    for told in (
        " ".join(each.content for each in srt.parse(subtitles.srt(cues))),
        " ".join(each.text for each in webvtt.from_buffer(io.StringIO(subtitles.vtt(cues)))),
    ):
        assert told.split() == words


def test_a_segment_that_can_be_read_at_once_is_one_cue() -> None:
    short = segment(" Yes. It is late, so we go.", 1.0, 4.0)
    assert list(make_cues([short])) == [
        Cue(
            start=timedelta(seconds=1),
            end=timedelta(seconds=4),
            text="Yes. It is late, so we go.",
        )
    ]


def test_half_a_minute_of_speech_is_cut_at_its_sentences() -> None:
    sentences = [
        "The library opens at nine in the morning and closes late in the evening.",
        "She bought fresh bread, apples and a bottle of milk at the market.",
        "Our train leaves the station in twenty minutes, so we should hurry.",
        "He came home.",
    ]
    cues = texts([spoken(" ".join(sentences))])
    told = [" ".join(cue.split()) for cue in cues]
    assert told == [*sentences[:2], " ".join(sentences[2:])]  # the last two fit together
    assert cues[0] == "The library opens at nine in the\nmorning and closes late in the evening."


def test_a_sentence_of_many_clauses_is_cut_at_a_comma() -> None:
    said = "When the weather turned cold and the river froze, the children of the village came out"
    cues = texts([spoken(f"{said} to skate on it.")])
    assert cues[0].endswith("froze,")
    assert len(cues) == 2


def test_words_without_spaces_are_cut_anywhere_but_not_in_the_middle_of_a_word() -> None:
    words = [
        Word(
            start=timedelta(seconds=number * 0.2),
            end=timedelta(seconds=number * 0.2 + 0.2),
            text=char,
            probability=1.0,
        )
        for number, char in enumerate("今天天气很好我们去公园散步。" * 6)
    ]
    text = "".join(word.text for word in words)
    cues = texts([segment(text, 0.0, 20.0, words)])
    assert all(cue.endswith("。") for cue in cues)
    assert len(cues) == 3

    glued = [
        Word(
            start=timedelta(seconds=number),
            end=timedelta(seconds=number + 0.9),
            text=text,
            probability=1.0,
        )
        for number, text in enumerate([" That", " is", " a", " well", "-known", " 3.", "14", " x"])
    ]
    whole = "".join(word.text for word in glued)
    told = " ".join(" ".join(texts([segment(whole, 0.0, 8.0, glued)])).split())
    assert told == whole.strip()


def test_what_looks_like_markup_survives() -> None:
    cues = list(make_cues([segment(" a --> <b> & c", 0.0, 2.0)]))
    (caption,) = webvtt.from_buffer(io.StringIO(subtitles.vtt(cues)))
    assert caption.text in ("a --> <b> & c", "a --&gt; &lt;b&gt; &amp; c")
    (subtitle,) = srt.parse(subtitles.srt(cues))
    assert subtitle.content == "a -> <b> & c"


def test_half_an_hour_takes_a_moment() -> None:
    said = "one two, three four five six seven eight nine ten eleven. " * 7
    segments = [spoken(said.strip(), start=30.0 * number) for number in range(60)]
    started = time.process_time()
    assert sum(1 for _ in make_cues(segments)) > 60
    assert time.process_time() - started < 3
