"""A program of its own that turns words into phonemes by espeak-ng; `espeak.py` starts it.

It uses the standard library alone and imports nothing of Atrium. A line of JSON in,
``[text, voice]``, gives a line of JSON out: the phonemes, or null for an unknown voice.
It ends when its input does.
"""

import ctypes
import json
import sys

_SYNCHRONOUS = 2
_UTF8 = 1
_IPA, _TIED = 0x02, 0x80


def _open(library: str, data: str) -> ctypes.CDLL:
    """Loads the library (espeak-ng's `speak_lib.h`)."""
    espeak = ctypes.CDLL(library)
    espeak.espeak_TextToPhonemes.restype = ctypes.c_char_p
    espeak.espeak_TextToPhonemes.argtypes = [
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_int,
        ctypes.c_int,
    ]
    if espeak.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), 0) <= 0:
        raise SystemExit("espeak-ng can't read its data")
    return espeak


def _phonemes(espeak: ctypes.CDLL, text: str, voice: str) -> str | None:
    """Returns IPA with ``^`` between the letters of one phoneme."""
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        return None
    buffer = ctypes.create_string_buffer(text.encode(errors="ignore"))
    rest = ctypes.c_void_p(ctypes.addressof(buffer))  # moves through it, clause by clause
    clauses: list[str] = []
    while rest.value:
        clause = espeak.espeak_TextToPhonemes(
            ctypes.byref(rest), _UTF8, _IPA | _TIED | ord("^") << 8
        )
        clauses.append((clause or b"").decode(errors="ignore"))
    return " ".join(clauses)


def main() -> None:
    """Answers line by line."""
    espeak = _open(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        text, voice = json.loads(line)
        sys.stdout.write(json.dumps(_phonemes(espeak, text, voice)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
