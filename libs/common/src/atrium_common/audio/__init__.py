"""Any audio file to samples, bounded in time and memory; needs the extra ``audio``.

`stt` decodes what it transcribes with it, `tts` the recordings that voices are made from.
"""

from atrium_common.audio.decode import AudioLimit, decode, decoded

__all__ = ["AudioLimit", "decode", "decoded"]
