"""Subtitles, durations in headers, and the words for what is wrong."""

from datetime import UTC, datetime, timedelta

import pytest

from atrium_gateway.api import subtitles
from atrium_gateway.api.cues import Cue
from atrium_gateway.api.decode import explain
from atrium_gateway.quota.limits import NEVER, LimitState
from atrium_gateway.ratelimit import limit_headers, seconds_header, span


def _cue(start, end, text):
    return Cue(start=timedelta(seconds=start), end=timedelta(seconds=end), text=text)


CUES = [
    _cue(0, 1.5, "Hello <b>"),
    _cue(3599.9996, 7322.25, "two\nlines --> & more"),
]


def test_srt_numbers_what_is_said_and_keeps_blocks_whole():
    assert subtitles.srt(CUES) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello <b>\n"
        "\n"
        "2\n01:00:00,000 --> 02:02:02,250\ntwo\nlines -> & more\n"
    )


def test_vtt_escapes_markup():
    assert subtitles.vtt(CUES) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello &lt;b&gt;\n"
        "\n"
        "01:00:00.000 --> 02:02:02.250\ntwo\nlines --&gt; &amp; more\n"
    )


def test_nothing_said_is_still_a_file():
    assert subtitles.srt([]) == ""
    assert subtitles.vtt([]) == "WEBVTT\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.02, "20ms"), (1, "1s"), (59.1, "60s"), (360, "6m0s"), (3723, "1h2m3s")],
)
def test_durations_as_openai_writes_them(seconds, text):
    # 59.1 s is rounded up: a client that waits that long must not come too early.
    expected = "1m0s" if text == "60s" else text
    assert span(timedelta(seconds=seconds)) == expected


def test_retry_after_is_whole_and_never_zero():
    assert seconds_header(timedelta(milliseconds=1)) == "1"
    assert seconds_header(timedelta(seconds=1.2)) == "2"


def test_the_tightest_limit_of_a_unit_is_shown_and_all_of_them_are_listed():
    now, span_of_day = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1)
    soon, later = now + timedelta(minutes=5, seconds=59.5), now + timedelta(hours=6)
    hour = LimitState("requests", timedelta(hours=1), 100, 3, soon, "tenant:chat:requests:hour")
    day = LimitState("requests", span_of_day, 1000, 900, later, "key:*:requests:day")
    ever = LimitState("cost", timedelta(), 2_500_000, 1, NEVER, "user:*:cost:total")
    assert limit_headers([hour, day, ever], now=now) == {
        "ratelimit-policy": '"tenant:chat:requests:hour";q=100;w=3600, '
        '"key:*:requests:day";q=1000;w=86400, "user:*:cost:total";q=2500000',
        "ratelimit": '"tenant:chat:requests:hour";r=3;t=360, '
        '"key:*:requests:day";r=900;t=21600, "user:*:cost:total";r=1',
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-limit-cost": "2.5",
        "x-ratelimit-remaining-cost": "0.000001",
    }
    assert limit_headers([], now=now) == {}


def test_unknown_parameter_inside_another_is_named_by_its_path():
    error = explain("Object contains unknown field `color` - at `$.messages[0]`")
    assert (error.field, error.reason) == ("messages[0].color", "UNKNOWN_PARAMETER")
