"""Any file in: the same samples as faster-whisper's loader, or an error that names the fault."""

import asyncio
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from atrium_common.errors import Cancelled, MediaError
from atrium_stt.audio import decode, open_recording
from atrium_stt.recording import AudioLimits
from atrium_stt.testing.sounds import (
    FORMATS,
    bomb,
    encode,
    hide_length,
    tone,
    video_without_sound,
    write_wav,
)

LIMITS = AudioLimits(duration=timedelta(hours=1))


@pytest.mark.parametrize("kind", FORMATS)
def test_decodes_what_faster_whisper_decodes(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / "upload", tone(3.0), kind)
    with decode(path, limits=LIMITS) as recording:
        assert abs(recording.duration.total_seconds() - 3.0) < 0.1
        samples = recording.samples(0, recording.sample_count)
    np.testing.assert_array_equal(samples, decode_audio(str(path)))


def faults(folder: Path) -> dict[str, tuple[bytes, str]]:
    mp3 = encode(folder / "mp3", tone(3.0), "mp3").read_bytes()
    m4a = encode(folder / "m4a", tone(3.0), "m4a-aac").read_bytes()
    flac = encode(folder / "flac", tone(3.0), "flac").read_bytes()
    wav = write_wav(folder / "wav", tone(1.0)).read_bytes()
    noise = np.random.default_rng(3).bytes(50_000)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{folder}/wav\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{folder}/wav'"
    video = video_without_sound(folder / "v").read_bytes()
    return {
        "empty": (b"", "AUDIO_EMPTY"),
        "a bare header": (wav[:44], "AUDIO_EMPTY"),
        "half a header": (wav[:20], "AUDIO_CORRUPT"),
        "no samples a second": (wav[:24] + bytes(4) + wav[28:], "AUDIO_CORRUPT"),
        "one sample a second": (wav[:24] + b"\1\0\0\0" + wav[28:], "AUDIO_FORMAT_UNKNOWN"),
        "text": (b"Dear diary, today I was renamed to mp3. " * 99, "AUDIO_FORMAT_UNKNOWN"),
        "noise": (noise, "AUDIO_FORMAT_UNKNOWN"),
        "a playlist of local files": (playlist.encode(), "AUDIO_FORMAT_UNKNOWN"),
        "a list of local files": (concat.encode(), "AUDIO_FORMAT_UNKNOWN"),
        "a picture": (b"\x89PNG\r\n\x1a\n" + noise, "AUDIO_FORMAT_UNKNOWN"),
        "a picture in silence": (video, "AUDIO_TRACK_MISSING"),
        "noise behind an MP3 header": (mp3[:64] + noise, "AUDIO_CORRUPT"),
        "noise behind a FLAC header": (flac[:64] + noise, "AUDIO_CORRUPT"),
        "half an MP4": (m4a[: len(m4a) // 2], "AUDIO_CORRUPT"),
    }


def test_names_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    for name, (data, reason) in faults(tmp_path).items():
        path = tmp_path / "upload"
        path.write_bytes(data)
        with pytest.raises(MediaError) as caught:
            decode(path, limits=LIMITS)
        assert (name, caught.value.reason) == (name, reason)
        assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("kind", ["mp3", "ogg-opus", "webm-opus", "flac", "wav-16k-stereo"])
def test_a_file_that_was_cut_gives_what_is_there(tmp_path: Path, kind: str) -> None:
    data = encode(tmp_path / "whole", tone(6.0), kind).read_bytes()
    path = tmp_path / "upload"
    path.write_bytes(data[: len(data) // 2])
    with decode(path, limits=LIMITS) as recording:
        assert 1.0 < recording.duration.total_seconds() < 5.0


def test_the_limit_holds_at_its_edge(tmp_path: Path) -> None:
    limits = AudioLimits(duration=timedelta(seconds=2))
    decode(write_wav(tmp_path / "fits", tone(2.0)), limits=limits).close()
    with pytest.raises(MediaError) as caught:
        decode(write_wav(tmp_path / "over", tone(2.01)), limits=limits)
    assert caught.value.reason == "AUDIO_TOO_LONG"


def test_a_file_that_says_itself_that_it_is_too_long_is_not_decoded(tmp_path: Path) -> None:
    path = bomb(tmp_path / "bomb", hours=1.1, container="flac", codec="flac")
    assert path.stat().st_size < 1_000_000
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return False

    with pytest.raises(MediaError) as caught:
        decode(path, limits=LIMITS, cancelled=cancelled)
    assert (caught.value.reason, asked) == ("AUDIO_TOO_LONG", 0)


# Prints the outcome and by how many bytes the peak of memory grew while it was decoded.
# (`getrusage` would count what the process that starts this one had.)
MEASURE = """
import sys
from datetime import timedelta
from pathlib import Path
from atrium_common.errors import MediaError
from atrium_stt.audio import decode
from atrium_stt.recording import AudioLimits

def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

warm, audio, hours = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
decode(warm, limits=AudioLimits()).close()
before = peak()
try:
    with decode(audio, limits=AudioLimits(duration=timedelta(hours=hours))) as recording:
        outcome = f"{recording.duration.total_seconds():.0f}"
except MediaError as error:
    outcome = error.reason
print(outcome, peak() - before)
"""


def test_a_decompression_bomb_takes_time_up_to_the_limit_but_no_memory(tmp_path: Path) -> None:
    warm = encode(tmp_path / "warm", tone(10.0), "flac")
    path = hide_length(bomb(tmp_path / "bomb", hours=2.1, container="flac", codec="flac"))
    for hours, outcome in (("1", "AUDIO_TOO_LONG"), ("3", "7560")):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(warm), str(path), hours],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        told, grown = done.stdout.split()
        assert told == outcome
        # An hour is 115 MB of samples; the longest stretch held is of 5 s.
        assert int(grown) < 16_000_000


def test_decoding_stops_when_the_caller_has_left(tmp_path: Path) -> None:
    path = encode(tmp_path / "upload", tone(30.0), "mp3")
    with pytest.raises(Cancelled):
        decode(path, limits=LIMITS, cancelled=lambda: True)


async def test_a_cancelled_decoding_is_over_before_its_file_goes(tmp_path: Path) -> None:
    path = hide_length(bomb(tmp_path / "bomb", hours=2.0, container="flac", codec="flac"))
    task = asyncio.create_task(open_recording(path, limits=LIMITS))
    await asyncio.sleep(0.05)
    task.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 0.5
