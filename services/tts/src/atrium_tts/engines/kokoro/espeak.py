"""Words to phonemes by espeak-ng, the only part of Atrium that loads GPL code (docs/adr/0006).

`phonemes.py` calls it. The library comes with the package `espeakng-loader`.
"""

import ctypes
import re
import threading
from typing import ClassVar

import espeakng_loader  # type: ignore[import-untyped]

_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
"""Else a missing data file ends the process."""

_UTF8 = 1
_IPA, _TIED = 0x02, 0x80
TIE = "^"
"""Stands between the letters of one phoneme, as in ``t^ʃ``."""

_SWITCH = re.compile(r"\([a-z^-]+\)")
"""Marks a word that another language's rules read, as in ``(en)``; letters tied too."""


class Espeak:
    """The library, which has one state per process: a lock orders its callers."""

    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        """Loads the library and its data.

        Raises:
            OSError: It can't be loaded.
        """
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._library.espeak_TextToPhonemes.argtypes = [
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.c_int,
            ctypes.c_int,
        ]
        data = espeakng_loader.get_data_path().encode()
        with self._lock:
            rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT)
        if rate <= 0:
            raise OSError("espeak-ng can't read its data")

    def phonemes(self, text: str, voice: str) -> str:
        """Returns the IPA of `text`, its words apart by spaces, without punctuation.

        Args:
            text: Words and numbers.
            voice: espeak's name of the language, e.g. ``"en-us"``.

        Raises:
            ValueError: espeak has no such language.
        """
        # A buffer of our own: the library's pointer moves through it, clause by clause.
        buffer = ctypes.create_string_buffer(text.replace("\0", " ").encode(errors="ignore"))
        rest = ctypes.c_void_p(ctypes.addressof(buffer))
        clauses: list[str] = []
        with self._lock:
            if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise ValueError(f"espeak-ng does not know {voice!r}")
            while rest.value:
                clause = self._library.espeak_TextToPhonemes(
                    ctypes.byref(rest), _UTF8, _IPA | _TIED | ord(TIE) << 8
                )
                clauses.append((clause or b"").decode())
        return " ".join(_SWITCH.sub("", " ".join(clauses)).split())
