"""The LoRA files that a model may use: their ids, digests and places on the disk.

The engine plans requests with it, before anything is loaded; `LoraSet` asks it for files.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from atrium_common.catalogue import AdapterEntry
from atrium_common.errors import NotFound
from atrium_common.weights import WeightsError, WeightStore
from atrium_common.weights.manifest import sha256_of
from atrium_diffusion.domain import AppliedLora, LoraUse
from atrium_diffusion.sdxl.files import bad, check_safetensors

_SUFFIX = ".safetensors"


class LoraFiles:
    """Finds and checks the adapters of one model. Thread-safe.

    A digest is the catalogue's: the entry's own, else that of its listed .safetensors file.
    Where the catalogue states none, it is computed from the file, once.
    """

    def __init__(self, entries: Sequence[AdapterEntry], *, store: WeightStore) -> None:
        """Takes the entries that the model may use; reads nothing yet."""
        self._entries = {entry.id: entry for entry in entries}
        self._store = store
        self._digests = {entry.id: _stated(entry) for entry in entries}

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids that a request may name, in catalogue order."""
        return tuple(self._entries)

    def prepare(self) -> None:
        """Computes the digests that the catalogue does not state, of files that are there.

        Blocking; called once as the model is loaded, so that `applied` need not read files.
        """
        for name, digest in self._digests.items():
            if not digest:
                with suppress(WeightsError):  # told to whoever asks for it
                    self._digest(name)

    def applied(self, uses: Sequence[LoraUse]) -> tuple[AppliedLora, ...]:
        """Decides what a request's adapters are.

        Returns:
            The adapters in order of their ids: floating-point sums depend on the order, so
            the same set gives the same picture, and shares a batch.

        Raises:
            NotFound: The model may not use one; `field` is ``"denoising.loras"``.
            WeightsError: The licence of one was not accepted, or its file is needed for the
                digest and not there.
        """
        for use in uses:
            if use.id not in self._entries:
                known = ", ".join(self._entries) or "none"
                raise NotFound(
                    f"The model has no LoRA {use.id!r}; it has: {known}.",
                    reason="LORA_NOT_FOUND",
                    field="denoising.loras",
                )
            self._store.check_license(self._entries[use.id])
        return tuple(
            AppliedLora(id=use.id, digest=self._digest(use.id), scale=use.scale)
            for use in sorted(uses, key=lambda use: use.id)
        )

    def path(self, name: str) -> Path:
        """Returns the safetensors file of an adapter; its head can be read.

        Raises:
            WeightsError: It is not there, is a pickle, is damaged, there are several, or its
                licence was not accepted.
        """
        entry, folder = self._entries[name], self._folder(name)
        listed = [file.name for source in entry.sources for file in source.files]
        found = [folder / file for file in dict.fromkeys(listed) if file.endswith(_SUFFIX)]
        found = [file for file in found if file.is_file()]
        if not listed:
            found = sorted(folder.glob(f"*{_SUFFIX}"))
        if len(found) > 1:
            raise bad(folder, f"the LoRA {name} is one {_SUFFIX} file, here are {len(found)}")
        path = found[0] if found else folder / (listed[0] if listed else f"{name}{_SUFFIX}")
        check_safetensors(path)
        return path

    def checked(self, lora: AppliedLora) -> Path:
        """Returns the file of an adapter after reading all of it.

        Raises:
            WeightsError: As `path`, or the file has another digest than `lora` says.
        """
        path = self.path(lora.id)
        digest = sha256_of(path)
        if digest != lora.digest:
            raise bad(
                path,
                f"the LoRA {lora.id} has digest {digest[:12]}..., not {lora.digest[:12]}...",
                reason="BAD_DIGEST",
            )
        return path

    def _folder(self, name: str) -> Path:
        entry = self._entries[name]
        self._store.check_license(entry)
        folder = self._store.locate(entry)
        if folder is None:
            raise WeightsError(f"the LoRA {name} was not fetched yet", reason="MISSING_FILE")
        return folder

    def _digest(self, name: str) -> str:
        if not self._digests[name]:
            self._digests[name] = sha256_of(self.path(name))
        return self._digests[name]


def _stated(entry: AdapterEntry) -> str:
    """The digest that the catalogue states, or ``""``."""
    listed = (file for source in entry.sources for file in source.files)
    return entry.digest or next(
        (file.sha256 for file in listed if file.sha256 and file.name.endswith(_SUFFIX)), ""
    )
