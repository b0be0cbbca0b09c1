"""Names an audio format by its first bytes, for error messages; `decode.py` calls this.

FFmpeg finds the format on its own. This only lets a refusal say "The MP3 file is corrupt"
where FFmpeg says no more than "invalid data".
"""

from pathlib import Path

_MAGIC = (
    (0, b"RIFF", "WAV"),
    (0, b"OggS", "Ogg"),
    (0, b"fLaC", "FLAC"),
    (0, b"ID3", "MP3"),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska"),
    (4, b"ftyp", "MP4"),
    (4, b"moov", "MP4"),
    (4, b"mdat", "MP4"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b"#!AMR", "AMR"),
    (0, b"0&\xb2u", "WMA"),
    (0, b".snd", "AU"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf3", "MP3"),
    (0, b"\xff\xf2", "MP3"),
    (0, b"\xff\xfa", "MP3"),
)


def name_format(path: Path) -> str | None:
    """Returns the format's usual name, or ``None`` if the first bytes are of none we know."""
    with path.open("rb") as file:
        head = file.read(16)
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None
