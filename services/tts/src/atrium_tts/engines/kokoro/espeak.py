"""Words to phonemes by espeak-ng, which runs as a process of its own (docs/adr/0006).

`phonemes.py` calls it. The library comes with the package `espeakng-loader`; it is C code
that some texts crash, so nothing of it is loaded into the service.
"""

import json
import re
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import espeakng_loader  # type: ignore[import-untyped]

from atrium_common.errors import InvalidArgument, Unavailable

TIE = "^"
"""Stands between the letters of one phoneme, as in ``t^ʃ``."""

_WORKER = Path(__file__).with_name("espeak_worker.py")
_PATIENCE = 10.0
"""Seconds until a text counts as one that espeak hangs on; usual is a millisecond."""

_SWITCH = re.compile(r"\([a-z^-]+\)")
"""Marks a word that another language's rules read, as in ``(en)``; letters tied too."""


class Espeak:
    """Starts the process when it is first needed, and anew when it has died. One caller."""

    def __init__(self) -> None:
        """Starts nothing yet."""
        self._process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """Ends the process; the next call starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with suppress(BrokenPipeError), process:  # closes its pipes and waits for it
            pass

    def phonemes(self, text: str, voice: str) -> str:
        """Returns the IPA of `text`, its words apart by spaces, without punctuation.

        Blocks, usually for a millisecond.

        Args:
            text: Words and numbers.
            voice: espeak's name of the language, e.g. ``"en-us"``.

        Raises:
            InvalidArgument: espeak can't read the text; `field` is ``"text"``.
            Unavailable: It can't be started.
            ValueError: It has no such language.
        """
        line = self._answer(json.dumps([text.replace("\0", " "), voice]))
        if not line:
            self.close()
            raise InvalidArgument(
                "The text has signs that can't be read aloud.", reason="UNREADABLE", field="text"
            )
        ipa: str | None = json.loads(line)
        if ipa is None:
            raise ValueError(f"espeak-ng does not know {voice!r}")
        return " ".join(_SWITCH.sub("", ipa).split())

    def _answer(self, question: str) -> str:
        """Asks the process; ``""`` if it dies of the question, or says nothing for long."""
        process = self._running()
        if process.stdin is None or process.stdout is None:
            raise Unavailable("espeak-ng has no pipes.")
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        ready, _, _ = select.select([process.stdout], [], [], _PATIENCE)
        return process.stdout.readline() if ready else ""

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it was ended from outside
        if self._process is None:
            library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
            try:
                self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and program
                    [sys.executable, "-I", "-S", str(_WORKER), library, data],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    encoding="utf-8",
                )
            except OSError as err:
                raise Unavailable("espeak-ng could not be started.") from err
        return self._process
