"""From what a caller wrote to what an engine says; `speech.py` calls `plan_speech`."""

from atrium_tts.text.plan import plan_speech

__all__ = ["plan_speech"]
