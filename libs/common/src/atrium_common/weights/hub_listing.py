"""The hub's list of a commit's files: its JSON, read strictly. `hub_http.py` calls this."""

from dataclasses import dataclass

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from atrium_common.weights.errors import WeightsError


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the hub says of a file: its size and its digest.

    Attributes:
        size: Length in bytes.
        sha256: Of a large file (Git LFS); empty for others.
        git_sha1: Of a small file: its object's name in the commit; empty for large ones.
    """

    size: int
    sha256: str = ""
    git_sha1: str = ""


class _Lfs(BaseModel):
    oid: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class _Row(BaseModel):
    type: str
    path: str
    oid: str = Field(pattern=r"^[0-9a-f]{40}$")
    size: int = Field(default=0, ge=0)
    lfs: _Lfs | None = None


_ROWS = TypeAdapter(list[_Row])


def read_listing(page: bytes, *, repository: str) -> dict[str, RemoteFile]:
    """Reads a page of the listing; returns its files by path.

    Raises:
        WeightsError: It is not what the hub answers.
    """
    try:
        rows = _ROWS.validate_json(page)
    except ValidationError as err:
        raise WeightsError(
            f"{repository}: the hub's list of files can't be read", reason="FETCH_FAILED"
        ) from err
    return {
        row.path: RemoteFile(row.lfs.size, sha256=row.lfs.oid)
        if row.lfs
        else RemoteFile(row.size, git_sha1=row.oid)
        for row in rows
        if row.type == "file"
    }
