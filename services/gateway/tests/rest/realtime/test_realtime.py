"""What live transcription says: OpenAI's protocol, its official client, its refusals."""

import asyncio
import base64
import re

import pytest

TRANSCRIPTION = "conversation.item.input_audio_transcription"
COMPLETED = f"{TRANSCRIPTION}.completed"
DELTA = f"{TRANSCRIPTION}.delta"
G711 = {"audio/pcmu": (b"\xff", b"\x00"), "audio/pcma": (b"\xd5", b"\x2a")}
"""Bytes of silence and of the loudest negative sample."""


async def test_official_client_hears_deltas_that_add_up_to_the_transcript(rest, sound):
    key = await rest.key("live-official", unlimited=True)
    client = rest.openai(key)
    texts: dict[str, str] = {}
    completed = []
    seen = []
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "transcription": {"model": "whisper-1", "language": "en"},
                        "turn_detection": {
                            "type": "server_vad",
                            "threshold": 0.5,
                            "prefix_padding_ms": 300,
                            "silence_duration_ms": 500,
                        },
                    }
                },
                "include": ["item.input_audio_transcription.logprobs"],
            }
        )

        async def speak():
            pcm = sound.speech(3.2) + sound.silence(1) + sound.speech(2.1) + sound.silence(1)
            for start in range(0, len(pcm), 4800):
                audio = base64.b64encode(pcm[start : start + 4800]).decode()
                await connection.input_audio_buffer.append(audio=audio)
                await asyncio.sleep(0.02)

        speaking = asyncio.create_task(speak())
        async for event in connection:
            seen.append(event.type)
            if event.type == DELTA:
                texts[event.item_id] = texts.get(event.item_id, "") + event.delta
            elif event.type == COMPLETED:
                completed.append(event)
                if len(completed) == 2:
                    break
        await speaking
    assert seen[:2] == ["session.created", "session.updated"]
    assert "error" not in seen
    assert [event.transcript for event in completed] == ["word0 word1 word2", "word0 word1"]
    assert [texts[event.item_id] for event in completed] == [e.transcript for e in completed]
    assert [entry.token for entry in completed[0].logprobs] == [" word0", " word1", " word2"]
    assert all(event.usage.type == "duration" for event in completed)
    assert seen.count(DELTA) > 2
    (event,) = await rest.settled("live-official", 1)
    assert event.outcome == "completed"
    spoken = sum(event.usage.seconds for event in completed)
    assert spoken <= event.totals.input_audio.total_seconds() <= 7.31


async def test_each_segment_is_an_item_with_its_times(rest, talk, sound):
    key = await rest.key("live-items", unlimited=True)
    async with talk(rest, key) as client:
        await client.say(sound.silence(1) + sound.speech(2) + sound.silence(1))
        await client.say(sound.speech(1) + sound.silence(1))
        first = await client.until(COMPLETED)
        second = await client.until(COMPLETED)
    of_first = [e["type"] for e in client.events if _item_id(e) == first["item_id"]]
    assert [kind for kind in of_first if kind != DELTA] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        f"{TRANSCRIPTION}.segment",
        COMPLETED,
    ]
    starts = [e["audio_start_ms"] for e in client.all("input_audio_buffer.speech_started")]
    ends = [e["audio_end_ms"] for e in client.all("input_audio_buffer.speech_stopped")]
    assert starts == pytest.approx([1000, 4000], abs=100)
    assert ends == pytest.approx([3000, 5000], abs=100)
    assert first["item_id"] != second["item_id"]
    committed = client.all("input_audio_buffer.committed")
    assert [e["previous_item_id"] for e in committed] == [None, first["item_id"]]
    segments = client.all(f"{TRANSCRIPTION}.segment")
    assert segments[0]["start"] == pytest.approx(1, abs=0.1)
    assert segments[0]["end"] == pytest.approx(3, abs=0.1)
    assert len({event["event_id"] for event in client.events}) == len(client.events)


def _item_id(event):
    return event.get("item_id") or event.get("item", {}).get("id")


async def test_client_that_ends_its_turns_gets_one_item_for_each(rest, talk, sound):
    key = await rest.key("live-turns", unlimited=True)
    async with talk(rest, key) as client:
        await client.update(turn_detection=None)
        # Two segments to the service, one item to the client.
        await client.say(sound.speech(2) + sound.silence(1) + sound.speech(1))
        await client.send("input_audio_buffer.commit")
        await client.say(sound.speech(1))  # the next turn begins at once
        first = await client.until(COMPLETED)
        await client.send("input_audio_buffer.commit")
        second = await client.until(COMPLETED)
    assert first["transcript"] == "word0 word1 word0"
    assert second["transcript"] == "word0"
    for done in (first, second):
        deltas = [e["delta"] for e in client.all(DELTA) if e["item_id"] == done["item_id"]]
        assert "".join(deltas) == done["transcript"]
    assert not client.all("input_audio_buffer.speech_started")
    assert first["usage"]["seconds"] == pytest.approx(4, abs=0.1)
    segments = client.all(f"{TRANSCRIPTION}.segment")
    assert segments[-1]["start"] == pytest.approx(4, abs=0.1)  # in the session's time
    (event,) = await rest.settled("live-turns", 1)
    assert (event.outcome, event.totals.input_audio.total_seconds()) == (
        "completed",
        pytest.approx(5, abs=0.1),
    )


async def test_commit_ends_what_silence_has_not_ended(rest, talk, sound):
    key = await rest.key("live-commit", unlimited=True)
    async with talk(rest, key) as client:
        await client.say(sound.speech(2.5))
        await client.until("input_audio_buffer.speech_started")
        await client.send("input_audio_buffer.commit")
        done = await client.until(COMPLETED)
        assert done["transcript"] == "word0 word1"
        assert done["item_id"] == client.all("input_audio_buffer.speech_started")[0]["item_id"]
        assert len(client.all("input_audio_buffer.committed")) == 1


async def test_cleared_audio_is_forgotten(rest, talk, sound):
    key = await rest.key("live-clear", unlimited=True)
    async with talk(rest, key) as client:
        await client.update(turn_detection=None)
        await client.say(sound.speech(5))
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        await client.say(sound.speech(1))
        await client.send("input_audio_buffer.commit")
        assert (await client.until(COMPLETED))["transcript"] == "word0"
    assert len(client.all(COMPLETED)) == 1
    assert not client.errors


@pytest.mark.parametrize("kind", G711)
async def test_telephone_audio_is_heard(rest, talk, kind):
    quiet, loud = G711[kind]
    key = await rest.key(f"live-{kind[-4:]}", unlimited=True)
    async with talk(rest, key) as client:
        await client.update(format={"type": kind})
        await client.say((quiet + loud) * 8000 + quiet * 8000, size=800)
        assert (await client.until(COMPLETED))["transcript"] == "word0 word1"


async def test_other_rates_and_cut_samples_are_heard(rest, talk, sound):
    key = await rest.key("live-rates", unlimited=True)
    async with talk(rest, key) as client:
        await client.update(format={"type": "audio/pcm", "rate": 48000})
        pcm = sound.speech(2, 48000) + sound.silence(1, 48000)
        await client.say(pcm, size=4801)
        assert (await client.until(COMPLETED))["transcript"] == "word0 word1"


async def test_what_is_wrong_is_refused_by_name_and_the_session_goes_on(rest, talk, sound):
    key = await rest.key("live-refused", unlimited=True)
    where = "session.audio.input"
    bad = [
        ("response.create", {}, "type", "unsupported_event"),
        ("transcription_session.update", {"session": {}}, "type", "unsupported_event"),
        ("no.such.event", {}, "type", "invalid_value"),
        ("input_audio_buffer.append", {}, "audio", "missing_required_parameter"),
        ("input_audio_buffer.append", {"audio": "*"}, "audio", "invalid_value"),
        ("input_audio_buffer.append", {"audio": "", "x": 1}, "x", "unknown_parameter"),
        ("input_audio_buffer.commit", {}, None, "input_audio_buffer_commit_empty"),
        ("session.update", {"session": {"type": "realtime"}}, "session.type", "invalid_value"),
        *(
            ("session.update", _update(given), f"{where}.{field}", code)
            for given, field, code in (
                ({"noise_reduction": {"type": "near_field"}}, "noise_reduction", "invalid_value"),
                ({"format": {"type": "audio/opus"}}, "format.type", "invalid_value"),
                ({"format": {"type": "audio/pcm", "rate": 7999}}, "format.rate", "invalid_value"),
                (
                    {"turn_detection": {"type": "semantic_vad"}},
                    "turn_detection.type",
                    "invalid_value",
                ),
                (
                    {"turn_detection": {"type": "server_vad", "threshold": 0.9}},
                    "turn_detection.threshold",
                    "invalid_value",
                ),
                (
                    {"turn_detection": {"type": "server_vad", "silence_duration_ms": 9}},
                    "turn_detection.silence_duration_ms",
                    "invalid_value",
                ),
                ({"transcription": {"delay": "low"}}, "transcription.delay", "unknown_parameter"),
                ({"transcription": {"model": "none"}}, "transcription.model", "model_not_found"),
                ({"transcription": {"language": "English"}}, "transcription.language", None),
            )
        ),
    ]
    async with talk(rest, key) as client:
        for number, (kind, fields, param, code) in enumerate(bad):
            await client.send(kind, event_id=f"mine{number}", **fields)
            error = (await client.until("error"))["error"]
            assert error["param"] == param, kind
            assert error["code"] == (code or "invalid_value"), fields
            assert (error["event_id"], error["type"]) == (f"mine{number}", "invalid_request_error")
            assert error["message"]
        await client.socket.send("{")
        assert (await client.until("error"))["error"]["code"] == "invalid_json"
        await client.socket.send(b"\0\0")
        assert (await client.until("error"))["error"]["code"] == "binary_message"
        assert not await rest.events("live-refused")  # none of it was work
        await client.say(sound.speech(1) + sound.silence(1))
        assert (await client.until(COMPLETED))["transcript"] == "word0"
        await client.update(transcription={"model": "fake-whisper"})  # the same by its id
        await client.until("session.updated")


def _update(given):
    return {"session": {"type": "transcription", "audio": {"input": given}}}


async def test_session_shows_how_it_is_set_up(rest, talk):
    key = await rest.key("live-session", unlimited=True)
    async with talk(rest, key, query="model=whisper-1") as client:
        before = client.events[0]["session"]
        assert re.fullmatch(r"sess_[0-9a-f]{32}", before["id"])
        assert before["object"] == "realtime.transcription_session"
        assert before["audio"]["input"] == {
            "format": {"type": "audio/pcm", "rate": 24000},
            "noise_reduction": None,
            "transcription": {
                "model": "whisper-1",
                "language": None,
                "prompt": None,
                "keywords": None,
            },
            "turn_detection": {
                "type": "server_vad",
                "silence_duration_ms": 500,
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "idle_timeout_ms": None,
                "create_response": None,
                "interrupt_response": None,
            },
        }
        await client.update(transcription={"language": "de", "keywords": ["Atrium"]})
        await client.update(turn_detection=None)
        await client.until("session.updated")
        after = (await client.until("session.updated"))["session"]["audio"]["input"]
        assert after["transcription"] == {
            "model": "whisper-1",
            "language": "de",
            "prompt": None,
            "keywords": ["Atrium"],
        }
        assert after["turn_detection"] is None
