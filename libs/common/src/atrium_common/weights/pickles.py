"""Tells Python pickles, which run code when they are loaded, from weights that are data only.

`fetch.py` and `hub_files.py` refuse them unless the catalogue says why they are taken. A name
alone decides little: CTranslate2's ``model.bin`` is data, PyTorch's of that name is a pickle.
"""

import zipfile
from pathlib import Path

from atrium_common.catalogue_sources import PICKLE_SUFFIXES
from atrium_common.weights.errors import WeightsError

_PROTOCOLS = {bytes([0x80, protocol]) for protocol in range(2, 6)}
"""How a pickle of protocol 2 to 5 begins; older ones have no mark, and old names tell them."""


def is_pickle(path: Path, name: str) -> bool:
    """Tells whether loading the file could run code.

    Args:
        path: Where it lies.
        name: What the repository calls it.
    """
    if name.endswith(PICKLE_SUFFIXES):
        return True
    with path.open("rb") as file:
        head = file.read(8)
    if head[:2] in _PROTOCOLS:
        # Two bytes are little evidence: a header of 640 to 1,408 bytes in a safetensors
        # file begins alike, and is followed by six zeros.
        return head[2:8] != bytes(6)
    if head[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(member.endswith(".pkl") for member in archive.namelist())
        except zipfile.BadZipFile:
            return False
    return False


def refuse_pickle(path: Path, name: str, *, reason: str) -> None:
    """Refuses a pickle that the catalogue gives no reason for.

    Raises:
        WeightsError: It is one, and `reason` is empty.
    """
    if not reason and is_pickle(path, name):
        raise WeightsError(
            f"{name} is a pickle, which may run code: take safetensors, or say why in the "
            "catalogue (pickle_reason); nothing was kept",
            reason="UNSAFE_FORMAT",
        )
