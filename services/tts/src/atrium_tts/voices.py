"""Keeps cloned voices: per tenant, on disk, with the most recent ones in memory.

The servicer makes, lists and deletes them; `speech_plan.py` looks them up. The recording
itself is not kept. A tenant's voices lie in a folder of its own that is named by a hash,
and every look-up goes by tenant, so no tenant ever sees another's.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load

from atrium_common.errors import Conflict, InternalError
from atrium_tts.domain import Gender, Voice, VoiceOrder

_ID = re.compile(r"voice_[0-9a-f]{32}")
_FACTS = "voice.json"
_LATENTS = "latents.safetensors"
_STALE_SECONDS = 3600.0
"""Age from which on a folder that was never finished is taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVoice:
    """A cloned voice and what the engine speaks it with.

    Attributes:
        voice: As it is listed.
        latents: Safetensors; see `ClonesVoices.clone`.
    """

    voice: Voice
    latents: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVoice:
    """A voice that is to be kept.

    Attributes:
        order: What was asked for.
        model: Catalogue id of the model that made it; the only one that speaks it.
        recording_sha256: Of the recording, lower-case hex: proof of what was consented to.
        latents: Safetensors.
    """

    order: VoiceOrder
    model: str
    recording_sha256: str
    latents: bytes


class VoiceStore:
    """The cloned voices of all tenants under one folder. Disk work runs in threads."""

    def __init__(
        self,
        folder: Path,
        *,
        limit: int = 100,
        cached: int = 64,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        make_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Opens the store; the folder is made when the first voice is.

        Args:
            folder: Where the voices are.
            limit: Most voices of a tenant.
            cached: Voices kept in memory.
            now: Aware UTC.
            make_id: Gives 32 hex digits.
        """
        self._folder = folder
        self._limit = limit
        self._cached = cached
        self._now = now
        self._make_id = make_id
        self._memory: OrderedDict[Path, StoredVoice] = OrderedDict()
        self._writing = asyncio.Lock()

    async def find(self, tenant: str, identifier: str) -> StoredVoice | None:
        """Returns a voice of this tenant, or ``None``."""
        folder = self._path(tenant, identifier)
        if folder is None:
            return None
        # Asked of the disk each time: another process may have deleted it.
        if not await asyncio.to_thread(folder.exists):
            self._memory.pop(folder, None)
            return None
        known = self._memory.get(folder)
        if known is None:
            known = await asyncio.to_thread(_read, folder)
            if known is None:
                return None
            self._memory[folder] = known
        self._memory.move_to_end(folder)
        while len(self._memory) > self._cached:
            self._memory.popitem(last=False)
        return known

    async def list(self, tenant: str) -> Sequence[Voice]:
        """Lists a tenant's voices, newest first."""
        return await asyncio.to_thread(_list, self._home(tenant))

    async def check_room(self, tenant: str) -> None:
        """Refuses a tenant that keeps as many voices as it may.

        Raises:
            Conflict: It does; the reason is ``VOICE_LIMIT_REACHED``.
        """
        count = len(await asyncio.to_thread(_folders, self._home(tenant)))
        if count >= self._limit:
            raise Conflict(
                f"The tenant keeps {count} voices, at most {self._limit}; delete one first.",
                reason="VOICE_LIMIT_REACHED",
            )

    async def create(self, tenant: str, new: NewVoice) -> Voice:
        """Keeps a voice; it is there as a whole or not at all.

        Raises:
            Conflict: The tenant keeps as many voices as it may.
        """
        if not tenant:
            raise ValueError("a voice belongs to a tenant")
        voice = Voice(
            id=f"voice_{self._make_id()}",
            name=new.order.name,
            models=(new.model,),
            languages=(new.order.language,) if new.order.language else (),
            gender=new.order.gender,
            cloned=True,
            created_at=self._now(),
        )
        async with self._writing:
            await self.check_room(tenant)
            await asyncio.to_thread(_write, self._home(tenant), voice, new)
        return voice

    async def delete(self, tenant: str, identifier: str) -> bool:
        """Deletes a voice of this tenant and all that was derived; false if it has none such."""
        folder = self._path(tenant, identifier)
        if folder is None:
            return False
        self._memory.pop(folder, None)
        return await asyncio.to_thread(_delete, folder)

    async def delete_tenant(self, tenant: str) -> None:
        """Deletes all voices of a tenant."""
        home = self._home(tenant)
        for folder in [folder for folder in self._memory if folder.parent == home]:
            del self._memory[folder]
        async with self._writing:
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)

    def _home(self, tenant: str) -> Path:
        return self._folder / hashlib.sha256(tenant.encode()).hexdigest()

    def _path(self, tenant: str, identifier: str) -> Path | None:
        if not tenant or not _ID.fullmatch(identifier):
            return None
        return self._home(tenant) / identifier


def _folders(home: Path) -> list[Path]:
    try:
        return [folder for folder in home.iterdir() if _ID.fullmatch(folder.name)]
    except FileNotFoundError:
        return []


def _list(home: Path) -> list[Voice]:
    voices = [voice for folder in _folders(home) if (voice := _read_facts(folder)) is not None]
    return sorted(voices, key=lambda voice: (voice.created_at or datetime.min, voice.id))[::-1]


def _write(home: Path, voice: Voice, new: NewVoice) -> None:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep(home)
    part = home / f".part-{voice.id}"
    part.mkdir(mode=0o700)
    try:
        assert voice.created_at is not None  # noqa: S101 - the store sets it
        facts = {
            **{key: value for key, value in asdict(voice).items() if key != "created_at"},
            "created_at": voice.created_at.isoformat(),
            "consent_given_at": voice.created_at.isoformat(),
            "recording_sha256": new.recording_sha256,
        }
        _save(part / _LATENTS, new.latents)
        _save(part / _FACTS, json.dumps(facts, indent=2).encode())
        part.rename(home / voice.id)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _save(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(folder: Path) -> StoredVoice | None:
    voice = _read_facts(folder)
    if voice is None:
        return None
    try:
        latents = (folder / _LATENTS).read_bytes()
        load(latents)
    except FileNotFoundError:
        return None  # deleted while it was read
    except SafetensorError as err:
        raise InternalError(f"The voice {voice.id} is damaged.", reason="VOICE_DAMAGED") from err
    return StoredVoice(voice=voice, latents=latents)


def _read_facts(folder: Path) -> Voice | None:
    try:
        facts = json.loads((folder / _FACTS).read_bytes())
    except FileNotFoundError:
        return None
    return Voice(
        id=facts["id"],
        name=facts["name"],
        models=tuple(facts["models"]),
        languages=tuple(facts["languages"]),
        gender=Gender(facts["gender"]),
        cloned=True,
        created_at=datetime.fromisoformat(facts["created_at"]),
    )


def _delete(folder: Path) -> bool:
    gone = folder.with_name(f".gone-{folder.name}")
    try:
        folder.rename(gone)  # at once for every reader
    except FileNotFoundError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _sweep(home: Path) -> None:
    """Takes away what a process that died left half done."""
    for left in home.glob(".*"):
        if left.name.startswith(".gone-") or time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
