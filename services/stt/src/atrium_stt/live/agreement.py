"""Successive drafts of an utterance to words that stay; `session.py` asks after each draft."""

from collections.abc import Sequence

from atrium_stt.engines.spelling import bare


class LocalAgreement:
    """Words on which two successive drafts agree are stable.

    The last word of a draft never is: the sound may have been cut within it, and its
    punctuation tells only that the sound ended.

    Attributes:
        stable: Text that will not change.
        tentative: What the last draft says after it.
    """

    def __init__(self) -> None:
        self.stable = ""
        self.tentative = ""
        self._last: Sequence[str] = ()

    def add(self, words: Sequence[str]) -> None:
        """Takes a draft.

        Args:
            words: What it says after the `stable` of before, each with its leading space.
        """
        agreed = 0
        for old, new in zip(self._last, words[:-1], strict=False):
            if bare(old) != bare(new):
                break
            agreed += 1
        self.stable += "".join(words[:agreed])
        self._last = words[agreed:]
        self.tentative = "".join(self._last)
