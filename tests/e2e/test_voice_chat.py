"""The voice round trip: `examples/voice_chat.py` against the running suite, judged by ear."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from tests.kit.audio import decoded
from tests.kit.speech import error_rate, question
from tests.kit.suite import ROOT, Suite

pytestmark = pytest.mark.model


async def test_a_spoken_question_gets_a_spoken_answer(
    suite: Suite, key: str, client: AsyncOpenAI, tmp_path: Path
) -> None:
    out = tmp_path / "answer.wav"
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "examples/voice_chat.py", "--url", suite.url),
        *("--in", str(question()), "--out", str(out)),
        cwd=ROOT,
        env={**os.environ, "ATRIUM_KEY": key},
        stdout=asyncio.subprocess.PIPE,
    )
    printed = (await program.communicate())[0].decode()
    assert program.returncode == 0
    heard, answered, times = printed.splitlines()
    assert error_rate("What is the capital of France?", heard.removeprefix("heard:")) == 0
    said = answered.removeprefix("answered:")
    assert "Paris" in said
    again = await client.audio.transcriptions.create(model="whisper-base", file=out)
    assert error_rate(said, again.text) <= 0.15

    moments = [float(each) for each in re.findall(r"after ([0-9.]+) s", times)]
    names = re.findall(r"([a-z ]+) after", times)
    assert [name.strip() for name in names] == [
        "question heard",
        "first sentence",
        "first audio",
        "all audio",
    ]
    assert moments == sorted(moments)
    assert len(decoded(out.read_bytes())) > 0
