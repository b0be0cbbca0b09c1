"""Speech to test with, and the measure of what was heard.

Sentences are spoken by Flite, and by a person (Asterisk's prompts); both come from Debian
packages that `scripts/test_tools.sh` installs.
"""

import gzip
import re
import subprocess
import wave
from pathlib import Path

import jiwer
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from atrium_stt.testing.sentences import SENTENCES
from tests.kit.suite import ROOT

CACHE = ROOT / ".atrium" / "cache" / "speech"
_PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
_TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en")
_PAUSE_SECONDS = 0.6


def spoken(count: int) -> Path:
    """A WAV file with the first `count` of `SENTENCES` and a pause after each."""
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / f"sentences-{count}.wav"
    if not file.exists():
        part = file.with_suffix(".part")
        with wave.open(str(part), "wb") as whole:
            for number, sentence in enumerate(SENTENCES[:count]):
                one = CACHE / f"one-{number}.wav"
                subprocess.run(["flite", "-voice", "slt", "-t", sentence, "-o", one], check=True)
                with wave.open(str(one)) as source:
                    if number == 0:
                        whole.setparams(source.getparams())
                    whole.writeframes(source.readframes(source.getnframes()))
                    whole.writeframes(bytes(2 * int(_PAUSE_SECONDS * source.getframerate())))
        part.rename(file)
    return file


def question() -> Path:
    """A WAV file in which Flite asks for the capital of France."""
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / "question.wav"
    if not file.exists():
        part = file.with_suffix(".part")
        text = "What is the capital of France?"
        subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", part], check=True)
        part.rename(file)
    return file


def error_rate(said: str, heard: str) -> float:
    """Word error rate after Whisper's own normalization of English."""
    normal = EnglishTextNormalizer({})
    return float(jiwer.wer(normal(said), normal(heard)))


def human(prompt: str) -> tuple[Path, str]:
    """A recording of a person and what she says, e.g. ``"conf-adminmenu"``."""
    lines: list[str] = []
    for page in sorted(_TEXTS.glob("*.txt*")):
        raw = page.read_bytes()
        text = gzip.decompress(raw) if page.suffix == ".gz" else raw
        lines += text.decode("utf-8", "replace").splitlines()
    for line in lines:
        if match := re.match(rf"{re.escape(prompt)}: (.+)", line):
            return _PROMPTS / f"{prompt}.wav", match[1]
    raise LookupError(f"no text of {prompt}")
