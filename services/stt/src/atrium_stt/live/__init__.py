"""Speech to text while it is spoken; `servicer.py` runs one `LiveSession` per caller.

    pcm.py        bytes of any rate, cut anywhere, to 16 kHz windows
    endpoint.py   windows and their speech probabilities to utterances
    listening.py  chunks to utterances, within the caller's limits
    talk.py       the utterances between listening and decoding
    turns.py      a session's turns at its engine, and what they took
    agreement.py  successive drafts of an utterance to words that stay
    decoding.py   utterances to drafts and final text
    outbox.py     what waits to be read: bounded, partials replaced by newer ones
    session.py    one caller: both halves, its reader, its end

**What is promised.** The text of an utterance's partials only grows and its final text
begins with it. A word becomes stable when two successive drafts agree on it (local
agreement, Liu et al. 2020, with n = 2) and another word follows it. The decodings that
come after are forced to begin with the stable text, so the final one can't take a word back.
It decides freely about the rest, and about everything where no partials are asked for.
"""
