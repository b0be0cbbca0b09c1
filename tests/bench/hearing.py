"""What is understood: speech in every format, and live speech beside the same as a file.

The judge is the suite's own transcription; `speech.py` calls these.
"""

import asyncio
from statistics import median

import numpy as np
from openai import AsyncOpenAI

from atrium_stt.testing.sentences import SENTENCES
from atrium_tts.domain import AudioFormat
from atrium_tts.encode import StreamEncoder
from atrium_tts.encoding import settle
from tests.bench.report import cpu_seconds, percentile, table
from tests.kit.audio import PCM_RATE, Samples, decoded, pcm, wav, with_pauses
from tests.kit.live import lags, transcribe_live
from tests.kit.speech import error_rate, spoken
from tests.kit.suite import Suite

MODEL, VOICE, EARS = "kokoro-82m", "af_heart", "whisper-base"


async def formats(suite: Suite) -> None:
    """Ten sentences, spoken once, encoded by the service's encoder and transcribed."""
    said = " ".join(SENTENCES)
    rows = []
    async with AsyncOpenAI(base_url=f"{suite.url}/v1", api_key=suite.key) as client:
        parts = await asyncio.gather(*(_speech(client, sentence) for sentence in SENTENCES))
        samples = with_pauses(parts)
        for name in AudioFormat:
            audio = _encoded(samples, name)
            # Headless samples can't be transcribed; they are what WAV holds.
            file = wav(pcm(audio)) if name is AudioFormat.PCM else audio
            heard = await client.audio.transcriptions.create(model=EARS, file=("audio", file))
            longer = len(decoded(file)) / len(samples) - 1
            errors = error_rate(said, heard.text)
            rows.append((name, f"{len(audio) / 1024:,.0f}", f"{longer:+.2%}", f"{errors:.1%}"))
    table(
        f"{MODEL}: ten sentences ({len(samples) / PCM_RATE:.0f} s) heard by {EARS}"
        " (goals: errors at most 6%, one point apart, length within 2%)",
        ("format", "KiB", "length beside the samples", "word error rate"),
        rows,
    )


async def _speech(client: AsyncOpenAI, text: str) -> Samples:
    answer = await client.audio.speech.create(
        model=MODEL, voice=VOICE, input=text, response_format="pcm"
    )
    return pcm(answer.content)


def _encoded(samples: Samples, name: AudioFormat) -> bytes:
    encoding = settle(name, sample_rate=0, bit_rate=None, own_rate=PCM_RATE)
    encoder = StreamEncoder(encoding, input_rate=PCM_RATE)
    try:
        return encoder.encode(samples.astype(np.float32) / 32768) + encoder.finish()
    finally:
        encoder.close()


async def live(suite: Suite) -> None:
    """A minute of speech as from a microphone, beside the same minute as a file."""
    said = " ".join([*SENTENCES, *SENTENCES[:4]])
    samples = np.concatenate([decoded(spoken(count).read_bytes()) for count in (10, 4)])
    async with AsyncOpenAI(base_url=f"{suite.url}/v1", api_key=suite.key) as client:
        whole = await client.audio.transcriptions.create(
            model=EARS,
            file=("minute.wav", wav(samples)),
            language="en",
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )
        before = cpu_seconds(suite.process("stt"))
        session = await transcribe_live(client, samples, model=EARS)
        cpu = cpu_seconds(suite.process("stt")) - before
    late = lags(session, [(word.word, word.end) for word in whole.words or ()])
    errors = [error_rate(said, text) for text in (whole.text, session.text)]
    length = len(samples) / PCM_RATE
    table(
        f"Live transcription of {length:.0f} s of speech through the gateway (goals: lag 3 s,"
        " errors within 2 points)",
        ("", "figure"),
        [
            ("words that came as they were spoken", f"{len(late)} of {len(said.split())}"),
            ("lag behind the end of a word, median", f"{median(late):.2f} s"),
            ("lag, 95 of 100 words", f"{percentile(late, 0.95):.2f} s"),
            ("lag, longest", f"{max(late):.2f} s"),
            ("word error rate of the whole file", f"{errors[0]:.1%}"),
            ("word error rate live", f"{errors[1]:.1%}"),
            ("CPU seconds of stt per second of speech", f"{cpu / length:.2f}"),
        ],
    )
