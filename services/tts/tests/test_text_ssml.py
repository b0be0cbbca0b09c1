"""SSML: a subset is spoken, each utterance knows its source, the rest is refused by name."""

import time
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrium_common.errors import InvalidArgument
from atrium_tts.domain import Utterance
from atrium_tts.text import plan_speech


def plan(source: str, language: str = "en", **options: bool) -> tuple[Utterance, ...]:
    return plan_speech(source, ssml=True, language=language, **options)


def speak(inside: str, language: str = "en", **options: bool) -> tuple[Utterance, ...]:
    return plan(f"<speak>{inside}</speak>", language, **options)


def said(inside: str, language: str = "en") -> str:
    (one,) = speak(inside, language)
    return one.text


def refusal(source: str, **options: bool) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        plan(source, **options)
    assert caught.value.field == "ssml"
    return caught.value


def test_the_usual_head_is_taken() -> None:
    (one,) = plan(
        '<?xml version="1.0" encoding="UTF-16"?>\n<speak version="1.1" xml:lang="en-GB" '
        'xmlns="http://www.w3.org/2001/10/synthesis"><!-- note -->Good\n   morning, '
        "<![CDATA[<you> & me]]> &lt;all&#33;</speak>"
    )
    assert one.text == "Good morning, <you> & me <all!"
    assert one.language == "en-GB"


def test_paragraphs_and_sentences_part() -> None:
    made = speak("<p>Yes</p><p><s>One and</s><s>two</s></p>And. So on it goes")
    assert [one.text for one in made] == ["Yes", "One and", "two", "And. So on it goes"]


def test_breaks_are_pauses_of_their_neighbours() -> None:
    first, second, third = speak(
        '<break time="500ms"/>A<break/><break time="2s" strength="weak"/>B<break strength="none"/>'
        'C<break time="0.25s"/>'
    )
    seconds = [
        (one.pause_before.total_seconds(), one.pause_after.total_seconds())
        for one in (first, second, third)
    ]
    assert seconds == [(0.5, 2.5), (0, 0), (0, 0.25)]


def test_rates_multiply() -> None:
    made = speak(
        'a<prosody rate="200%">b<prosody rate="slow">c</prosody><prosody rate="-50%">d</prosody>'
        '</prosody><prosody rate="0.5">e</prosody><prosody rate="+20%">f</prosody>'
    )
    assert [(one.text, one.rate) for one in made] == [
        ("a", 1.0), ("b", 2.0), ("c", 1.5), ("d", 1.0), ("e", 0.5), ("f", 1.2),
    ]  # fmt: skip


def test_languages_nest() -> None:
    made = speak('a <lang xml:lang="de">b <lang xml:lang="fr-FR">c</lang> d</lang> e')
    assert [one.language for one in made] == ["", "de", "fr-FR", "de", ""]


def test_sub_and_say_as() -> None:
    assert said('The <sub alias="World Wide Web">WWW</sub> is old.') == "The World Wide Web is old."
    assert said('Call <say-as interpret-as="digits">0171-55</say-as>.') == "Call 0 1 7 1 5 5."


@pytest.mark.parametrize(
    ("language", "order", "text", "spoken"),
    [
        ("en", "", "2026-01-31", "January 31st, 2026"),
        ("en", "mdy", "2/3/2026", "February 3rd, 2026"),
        ("en-GB", "dmy", "12.11.1999", "November 12th, 1999"),
        ("en", "md", "02-29", "February 29th"),
        ("en", "my", "7/2026", "July 2026"),
        ("en", "y", "1999", "1999"),
        ("de", "dmy", "3.10.2020", "3. Oktober 2020"),
        ("fr", "ymd", "2020-10-03", "3 octobre 2020"),
        ("es", "dm", "3/10", "3 de octubre"),
        ("pt-BR", "ymd", "2020 10 03", "3 de outubro de 2020"),
        ("it", "ym", "2020/10", "ottobre 2020"),
        ("ja", "", "2020-10-03", "2020年10月3日"),
        ("zh-CN", "", "2020-10-03", "2020年10月3日"),
    ],
)
def test_dates_are_said_in_their_language(
    language: str, order: str, text: str, spoken: str
) -> None:
    form = f' format="{order}"' if order else ""
    assert said(f'<say-as interpret-as="date"{form}>{text}</say-as>', language) == spoken


def test_spans_are_code_points_of_the_source() -> None:
    source = (
        "<speak>Ünï 🙂 &amp; <p>Zwei <sub alias='a &gt; b'>x</sub></p>"
        '<say-as interpret-as="digits">12</say-as></speak>'
    )
    spans = [source[one.start : one.end] for one in plan(source)]
    assert spans == [
        "Ünï 🙂 &amp;",
        "Zwei <sub alias='a &gt; b'>x</sub>",
        '<say-as interpret-as="digits">12</say-as>',
    ]
    # Text, the alias and what stands in say-as; pictures and markup cost nothing.
    assert [one.characters for one in plan(source)] == [8, 10, 2]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("just text", "syntax error at line 1"),
        ("<speak>a", "line 1"),
        ("<speak>a</speak>b", "junk"),
        ("<p>a</p>", "speak"),
        ("<speak><speak>a</speak></speak>", "speak"),
        ('<speak><audio src="x"/>a</speak>', "'audio'"),
        ('<speak><prosody rate="1" pitch="high">a</prosody></speak>', "'pitch'"),
        ("<speak><prosody>a</prosody></speak>", "rate is missing"),
        ('<speak><prosody rate="quick">a</prosody></speak>', "'quick'"),
        ('<speak><prosody rate="+1">a</prosody></speak>', "'+1'"),
        ('<speak><prosody rate="0">a</prosody></speak>', "0.25 to 4"),
        ('<speak><prosody rate="fast"><prosody rate="3">a</prosody></prosody></speak>', "4.5"),
        ('<speak><break time="11s"/>a</speak>', "over 10 s"),
        ('<speak><break time="-1s"/>a</speak>', "'-1s'"),
        ('<speak><break time="1"/>a</speak>', "'1'"),
        ('<speak><break strength="huge"/>a</speak>', "'huge'"),
        ("<speak><break>a</break></speak>", "must be empty"),
        ('<speak><say-as interpret-as="characters">a</say-as></speak>', "'characters'"),
        ("<speak><say-as>1</say-as></speak>", "interpret-as"),
        ('<speak><say-as interpret-as="digits">one</say-as></speak>', "'one'"),
        ('<speak><say-as interpret-as="date">1/2/2026</say-as></speak>', "format"),
        ('<speak><say-as interpret-as="date" format="dmy">30.2.2026</say-as></speak>', "30.2.2026"),
        ('<speak><say-as interpret-as="date" format="dmy">3.2.26</say-as></speak>', "3.2.26"),
        ('<speak><say-as interpret-as="date" format="yyyy">1</say-as></speak>', "'yyyy'"),
        ('<speak xml:lang="tlh"><say-as interpret-as="date">2026-01-31</say-as></speak>', "'tlh'"),
        ("<speak><sub>a</sub></speak>", "alias is missing"),
        ('<speak><sub alias="b"><s>a</s></sub></speak>', "'s'"),
        (f'<speak><sub alias="{"b " * 200}">a</sub></speak>', "300"),
        ("<speak><s><p>a</p></s></speak>", "'p'"),
        ("<speak><lang>a</lang></speak>", "xml:lang is missing"),
        ('<speak><lang xml:lang="not a tag">a</lang></speak>', "'not a tag'"),
        ('<speak xml:base="x">a</speak>', "'xml:base'"),
        ('<speak version="2.0">a</speak>', "'2.0'"),
        ('<speak xmlns="urn:mine">a</speak>', "'urn:mine'"),
        ('<speak xmlns:x="urn:mine"><x:p>a</x:p></speak>', "'urn:mine'"),
        ("<speak><?php 1 ?>a</speak>", "'php'"),
        ("<speak>&nbsp;</speak>", "undefined entity"),
        ("<!DOCTYPE speak><speak>a</speak>", "DOCTYPE"),
        ("<speak>\ud800</speak>", "surrogate"),
        ("<speak>\x00</speak>", "well-formed"),
        ("<speak/>", "nothing to say"),
        ("<speak>...<break/></speak>", "nothing to say"),
    ],
)
def test_anything_else_is_refused_by_name(source: str, named: str) -> None:
    assert named in refusal(source).message


@pytest.mark.parametrize("inside", ["a<break/>", '<prosody rate="2">a</prosody>'])
def test_what_a_whole_text_cannot_keep_is_refused(inside: str) -> None:
    error = refusal(f"<speak>{inside}</speak>", whole=True)
    assert error.reason == "SSML_UNSUPPORTED"
    assert ("break" in error.message) or ("prosody" in error.message)


@pytest.mark.parametrize("element", ["lang", "p", "s"])
def test_a_whole_text_has_one_language(element: str) -> None:
    error = refusal(f'<speak><{element} xml:lang="de">a</{element}></speak>', whole=True)
    assert element in error.message


def test_the_rest_becomes_plain_text_for_a_whole_one() -> None:
    source = (
        '<speak xml:lang="fr"><p>Un <sub alias="deux">2</sub>.</p><p><s>Trois &amp; '
        '<say-as interpret-as="digits">45</say-as></s></p></speak>'
    )
    (one,) = plan(source, whole=True)
    assert (one.text, one.language) == ("Un deux. Trois & 4 5", "fr")
    assert source[one.start : one.end].startswith("Un ")


def test_limits() -> None:
    assert speak('<prosody rate="1">' * 15 + "a" + "</prosody>" * 15)
    assert refusal("<speak>" + '<prosody rate="1">' * 16).reason == "SSML_TOO_DEEP"
    assert speak('<break time="10s"/>' * 6 + "a")[0].pause_before == timedelta(seconds=60)
    assert "60 s" in refusal("<speak>" + '<break time="10s"/>' * 6 + "<break/>a</speak>").message
    assert speak("a" * (20_000 - 15))
    assert refusal(f"<speak>{'a' * (20_001 - 15)}</speak>").reason == "TEXT_TOO_LONG"


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BOMBS = [
    f'<!DOCTYPE speak [<!ENTITY l0 "lol">{LAUGHS}]><speak>&l9;</speak>',
    '<!DOCTYPE speak [<!ENTITY x SYSTEM "file:///etc/passwd">]><speak>&x;</speak>',
    '<!DOCTYPE speak SYSTEM "http://127.0.0.1:9/x.dtd"><speak>a</speak>',
    '<!DOCTYPE speak [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><speak>a</speak>',
    "<speak>" * 2_800,
    "<speak><p " + "a" * 19_000,
    "<speak" + "".join(f' a{n}=""' for n in range(2_000)) + "/>",
    "<" * 20_000,
    "<speak>" + "<![CDATA[" * 2_000,
    "<speak>" + "x" * 10_000_000,
]


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_bombs_are_refused_at_once(bomb: str) -> None:
    begun = time.process_time()
    refusal(bomb)
    assert time.process_time() - begun < 0.2


@pytest.mark.parametrize(
    "piece",
    ["<p>é</p>", "é&lt;", 'é<break time="0s"/>', "<!--x-->é", "你好。", "<s/>", "é\n", "&#128578;a",
     "<sub alias='b'>>>>></sub>"],
)  # fmt: skip
def test_long_sources_take_no_longer_than_their_length(piece: str) -> None:
    begun = time.process_time()
    speak(piece * (19_900 // len(piece)) + "a")
    assert time.process_time() - begun < 0.8


PIECES = st.sampled_from(
    ["<p>A b.</p>", "<s>c 1</s>", "<break/>", "word ", "Ünï. ", "&amp;", "&#x1F642;",
     "<![CDATA[x y]]>",
     '<sub alias="one two">q</sub>', '<say-as interpret-as="digits">12</say-as>', "你好。",
     "<!-- no -->", '<prosody rate="2">fast one. Two</prosody>',
     '<lang xml:lang="de">Das z. B. hier.</lang>',
     "\n",
     '<say-as interpret-as="date">2020-10-03</say-as>', "a" * 70, ", "]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join), st.integers(20, 300))
def test_spans_are_in_order_and_counted_once(inside: str, longest: int) -> None:
    source = f"<speak>a1 {inside}</speak>"
    end = 0
    made = plan_speech(source, ssml=True, language="en", longest=longest)
    for one in made:
        assert end <= one.start < one.end <= len(source)
        assert one.text
        assert len(one.text) <= longest
        end = one.end
    assert sum(one.characters for one in made) <= len(source)
    words = " ".join(one.text for one in made)
    assert words.count("one two") == inside.count("one two")
    assert words.count("1 2") == inside.count(">12<")
