"""What `list` and `show` tell of an entry, as JSON and as text."""

from collections.abc import Mapping, Sequence

from atrium_common.catalogue import HubSource, ModelEntry, PackageSource, Source
from atrium_common.models_cli.options import AnyEntry, Shelf
from atrium_common.weights.hub_options import HubOptions
from atrium_common.weights.inventory import Inventory
from atrium_common.weights.manifest import Manifest

Value = str | int | bool | None | Sequence["Value"] | Mapping[str, "Value"]
Record = dict[str, Value]


def size_of(entry: AnyEntry) -> int | None:
    """Returns the bytes of its first source's files, as far as the catalogue knows them.

    ``None`` if it knows none; 0 for an entry without files.
    """
    if not entry.sources:
        return 0
    return sum(file.size for file in entry.sources[0].files) or None


def summary(entry: AnyEntry, shelf: Shelf) -> Record:
    """Returns the row of an entry."""
    model = entry if isinstance(entry, ModelEntry) else None
    return {
        "id": entry.id,
        "kind": "model" if model else "adapter",
        "services": shelf.services_of(entry),
        "capabilities": [str(each) for each in model.capabilities] if model else [],
        "size_bytes": size_of(entry),
        "memory_mib": model.memory_mib if model else None,
        "license": entry.license,
        "license_accepted": shelf.store.licences.allows(entry) if entry.accept_license else None,
        "state": Inventory(shelf.store).state(entry).value,
    }


def details(entry: AnyEntry, shelf: Shelf) -> Record:
    """Returns everything of an entry, its files with their digests included."""
    record = summary(entry, shelf)
    acceptance = shelf.store.licences.acceptance(entry)
    folder = Inventory(shelf.store).folder(entry)
    manifest = None if folder is None else Manifest.read(folder)
    digests = {file.name: file.sha256 for file in manifest.files} if manifest else {}
    if isinstance(entry, ModelEntry):
        record |= {
            "engine": entry.engine,
            "aliases": list(entry.aliases),
            "dtype": entry.dtype,
            "context_length": entry.context_length,
            "embedding_dimensions": entry.embedding_dimensions,
        }
    else:
        record |= {"models": list(entry.models)}
    return record | {
        "license_text": _license_text(entry),
        "accepted_by": acceptance.by if acceptance else None,
        "accepted_at": acceptance.at.isoformat() if acceptance else None,
        "digest": entry.digest or None,
        "folder": None if folder is None else str(folder),
        "sources": [_source(source, digests) for source in entry.sources],
    }


def _source(source: Source, digests: Mapping[str, str]) -> Record:
    record: Record = {"kind": source.kind}
    if isinstance(source, HubSource):
        record |= {
            "repository": source.repository,
            "revision": source.revision,
            "allow": list(source.allow),
            "unverified": source.unverified,
        }
    elif isinstance(source, PackageSource):
        record |= {"packages": dict(source.packages), "npm": dict(source.npm)}
    else:
        record["path"] = str(source.path)
    if source.pickle_reason:
        record["pickle_reason"] = source.pickle_reason
    files = {file.name: (file.size or None, file.sha256) for file in source.files}
    names = files or dict.fromkeys(digests, (None, None))
    return record | {
        "files": [
            {"name": name, "size_bytes": size, "sha256": digest or digests.get(name)}
            for name, (size, digest) in names.items()
        ]
    }


def _license_text(entry: AnyEntry) -> str | None:
    """Returns where the licence can be read."""
    if entry.license_url:
        return entry.license_url
    for source in entry.sources:
        if isinstance(source, HubSource):
            return f"{HubOptions.from_environment().endpoint}/{source.repository}"
    return None
