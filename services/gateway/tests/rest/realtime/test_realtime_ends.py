"""However a live session ends: settled once, what was heard is charged, and it is said why."""

import asyncio
import json
import random
import socket
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from websockets.exceptions import ConnectionClosed

from atrium_gateway.auth.tokens import TokenClaims
from atrium_gateway.live import LiveLimits
from atrium_gateway.quota.limits import Limit, Unit, Window

COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"
FAILED = "conversation.item.input_audio_transcription.failed"
STARTED = "input_audio_buffer.speech_started"
LEAVES = 50
AT_ONCE = 10


def audio(event):
    return event.totals.input_audio.total_seconds()


def audio_limit(seconds, window=Window.HOUR):
    return Limit("transcription", Unit.AUDIO_SECONDS, window, seconds)


async def test_leaving_in_mid_utterance_charges_what_was_heard(rest, talk, sound, until):
    key = await rest.key("live-leaves", unlimited=True)
    async with talk(rest, key) as client:
        await client.say(sound.speech(3))
        await client.until(STARTED)
        await asyncio.sleep(0.1)
    (event,) = await rest.settled("live-leaves", 1)
    assert event.outcome == "cancelled"
    assert 0 < audio(event) <= 3.01
    assert not event.estimated
    await until(lambda: not rest.stt_engine.listening)


async def test_fifty_leave_at_random_moments_and_nothing_leaks(rest, talk, sound, until):
    slots = Limit("transcription", Unit.REQUESTS, Window.CONCURRENT, AT_ONCE)
    lifted = Limit("transcription", Unit.REQUESTS, Window.HOUR, None)
    key = await rest.key("live-random", slots, lifted)
    chance = random.Random(5)  # noqa: S311 - moments, not secrets

    async def leave(seconds, *, rudely):
        async with talk(rest, key) as client:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await client.say(sound.speech(2) + sound.silence(1))
                    await client.until(COMPLETED)
            if rudely:  # a reset instead of a close frame
                tcp = client.socket.transport.get_extra_info("socket")
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.socket.transport.abort()

    admission = rest.core.admission
    for _ in range(LEAVES // AT_ONCE):
        await asyncio.gather(
            *(leave(chance.uniform(0, 0.3), rudely=chance.random() < 0.5) for _ in range(AT_ONCE))
        )
        await until(lambda: not (rest.live.count or admission.open_reservations))
    await until(lambda: not rest.stt_engine.listening)
    events = await rest.events("live-random")
    assert 0 < len(events) <= LEAVES
    assert len({event.id for event in events}) == len(events)
    assert {event.outcome for event in events} <= {"cancelled", "completed"}
    assert all(audio(event) <= 3.01 for event in events)


async def test_session_ends_where_its_audio_limit_does(rest, talk, sound):
    key = await rest.key("live-limit", audio_limit(90))
    async with talk(rest, key) as client:
        sending = asyncio.create_task(client.say((sound.speech(4) + sound.silence(1)) * 20, 48000))
        code, reason = await client.closed()
        with suppress(ConnectionClosed):
            await sending
    (error,) = client.errors
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "90 audio seconds per hour" in error["message"]
    assert code == 4429
    assert reason.startswith(error["code"])
    # What was heard was written down before the end: 90 s are 18 of the sentences.
    assert len(client.all(COMPLETED)) == 18
    (event,) = await rest.settled("live-limit", 1)
    assert audio(event) == pytest.approx(90, abs=0.01)
    async with talk(rest, key) as client:
        await client.say(sound.speech(1))
        code, _ = await client.closed()
        assert code == 4429
        assert "leaves 0" in client.errors[0]["message"]
    assert len(await rest.events("live-limit")) == 1


async def test_session_takes_one_place_among_concurrent_requests(rest, talk, sound):
    key = await rest.key("live-slots", Limit("*", Unit.REQUESTS, Window.CONCURRENT, 1))
    async with talk(rest, key) as first, talk(rest, key) as second:
        await first.say(sound.speech(1))
        await first.until(STARTED)
        await second.say(sound.speech(1))
        assert (await second.closed())[0] == 4429
        assert second.errors[0]["code"] == "rate_limit_exceeded"
        assert "1 concurrent requests" in second.errors[0]["message"]
        await first.say(sound.silence(1))
        await first.until(COMPLETED)
    assert len(await rest.settled("live-slots", 1)) == 1


async def test_reservation_grows_by_the_minute(rest, talk, sound):
    key = await rest.key("live-grows", audio_limit(200))
    async with talk(rest, key) as client:
        await client.say((sound.speech(1) + sound.silence(1)) * 33, 96000)
        await client.until(COMPLETED)
        async with talk(rest, key) as other:  # 120 of 200 s are reserved, 80 are left
            await other.say(sound.speech(1) + sound.silence(1))
            await other.until(COMPLETED)
        while len(client.all(COMPLETED)) < 33:
            await client.next()
    events = await rest.settled("live-grows", 2)
    short, long = sorted(map(audio, events))
    assert 1.5 <= short <= 2.01
    assert 65.5 <= long <= 66.01


async def test_credential_that_ends_ends_the_session(rest, talk, sound):
    revoked = await rest.key("live-expires", unlimited=True)
    token = rest.core.tokens.mint(
        TokenClaims(tenant="live-expires", subject="me", lifetime=timedelta(seconds=3))
    )
    async with talk(rest, token) as brief, talk(rest, revoked) as client:
        for each in (brief, client):
            await each.say(sound.speech(1))
            await each.until(STARTED)
        await rest.core.tenants.revoke_key(revoked.split("_")[1], now=datetime.now(UTC))
        async with asyncio.timeout(10):
            for each, said in ((brief, "has expired"), (client, "revoked")):
                code, reason = await each.closed()
                assert code == 4401
                assert said in reason
                assert each.errors[0]["code"] == "invalid_api_key"
    events = await rest.settled("live-expires", 2)
    assert {event.outcome for event in events} == {"cancelled"}


async def test_service_that_dies_is_told_and_what_was_heard_is_charged(start_rest, talk, sound):
    async with start_rest() as rest:
        key = await rest.key("live-dies", unlimited=True)
        async with talk(rest, key) as client:
            await client.say(sound.speech(6), pause=0.02)
            started = await client.until(STARTED)
            await client.until(DELTA)
            await rest.stop_stt()
            code, reason = await client.closed()
        (failed,) = client.all(FAILED)
        assert failed["item_id"] == started["item_id"]
        assert failed["error"]["message"] == client.errors[0]["message"]
        assert client.errors[0]["type"] == "server_error"
        assert (code, reason.partition(":")[0]) == (4503, client.errors[0]["code"])
        (event,) = await rest.settled("live-dies", 1)
        assert event.outcome == "failed"
        assert 0 < audio(event) <= 6.01


async def test_what_the_service_refuses_is_named_and_costs_nothing(rest, talk, sound):
    key = await rest.key("live-language", unlimited=True)
    async with talk(rest, key) as client:
        await client.update(transcription={"language": "pl"})
        await client.say(sound.speech(1))
        code, reason = await client.closed()
    assert client.errors[0]["param"] == "session.audio.input.transcription.language"
    assert (code, reason.partition(":")[0]) == (4400, "invalid_argument")
    (event,) = await rest.settled("live-language", 1)
    assert (event.outcome, audio(event)) == ("refunded", 0)


async def test_restart_waits_for_the_last_words(start_rest, talk, sound):
    running = start_rest()
    rest = await running.__aenter__()
    key = await rest.key("live-restart", unlimited=True)
    async with talk(rest, key) as client, talk(rest, key) as idle:
        await client.say(sound.speech(3))
        await client.until(STARTED)
        await asyncio.sleep(0.3)  # all of it has arrived
        stopping = asyncio.create_task(running.__aexit__(None, None, None))
        code, reason = await client.closed()
        assert not client.errors
        assert (code, reason) == (1012, "The server restarts; connect again.")
        assert client.all(COMPLETED)[0]["transcript"] == "word0 word1 word2"
        assert (await idle.closed())[0] == 1012
        await stopping
    assert not rest.core.admission.open_reservations


async def test_stalled_client_gets_its_last_words_and_a_clear_end(start_rest, talk, sound):
    async with start_rest(
        live=LiveLimits(idle_seconds=0.4, session_seconds=1, check_seconds=0.1)
    ) as rest:
        key = await rest.key("live-stalls", unlimited=True)
        async with talk(rest, key) as client:
            await client.say(sound.speech(2))
            code, reason = await client.closed()
        assert client.all(COMPLETED)[0]["transcript"] == "word0 word1"
        assert client.errors[0]["code"] == "idle_timeout"
        assert (code, reason) == (4408, "idle_timeout: The client sent nothing for 0.4 seconds.")
        (event,) = await rest.settled("live-stalls", 1)
        assert audio(event) == pytest.approx(2, abs=0.01)
        async with talk(rest, key) as client:

            async def talk_on():
                with suppress(ConnectionClosed):
                    while True:
                        await client.say(sound.speech(0.1))
                        await asyncio.sleep(0.1)

            talking = asyncio.create_task(talk_on())
            assert (await client.closed())[0] == 4408
            await talking
        assert client.all(COMPLETED)
        assert client.errors[0]["code"] == "session_expired"


def frame(event):
    """A masked text frame, as a client sends it; its mask is zero."""
    body = json.dumps(event).encode()
    return struct.pack("!BBH", 0x81, 0x80 | 126, len(body)) + bytes(4) + body


async def test_client_that_does_not_read_is_let_go_in_time(start_rest, until):
    async with start_rest(live=LiveLimits(send_seconds=0.3)) as rest:
        key = await rest.key("live-deaf", unlimited=True)
        host, port = rest.url.removeprefix("http://").split(":")
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, (host, int(port)))
        head = (
            "GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            f"authorization: Bearer {key}\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        await loop.sock_sendall(raw, head.encode())
        await until(lambda: rest.live.count == 1)
        update = frame({"type": "session.update", "session": {"type": "transcription"}})

        async def shout():
            while True:
                await loop.sock_sendall(raw, update * 100)

        shouting = asyncio.create_task(shout())
        await until(lambda: rest.live.count == 0)
        shouting.cancel()
        await asyncio.wait({shouting})
        # Behind what it did not read is why it was let go.
        close = struct.pack("!H", 4408) + b"client_too_slow: The client does not read its events."
        read = b""
        while not read.endswith(close):
            read = (read + await loop.sock_recv(raw, 1 << 20))[-200:]
        raw.close()
