"""Kokoro-82M: small enough for a laptop, the starter catalogue's voice.

The registry opens `KokoroEngine` lazily. Its libraries are the extra
`atrium-tts[kokoro]`; docs/adr/0006 tells why they stay out of the base install.
"""

from atrium_tts.engines.kokoro.engine import KokoroEngine

__all__ = ["KokoroEngine"]
