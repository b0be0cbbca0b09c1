"""Which licences the operator has accepted, kept beside the weights that they are about.

`atrium models licence accept` writes here; `WeightStore` reads it before it fetches or loads
a model whose catalogue entry says `accept_license`.
"""

import uuid
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from atrium_common.catalogue import Entry
from atrium_common.weights.errors import WeightsError, disk_errors


class Acceptance(BaseModel):
    """Who accepted which licence, and when. Another licence of the model is another matter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    license: str
    by: str
    at: AwareDatetime


class LicenceBook:
    """The acceptances in one folder of weights, a file each."""

    def __init__(self, root: Path) -> None:
        """Takes the folder of weights; reads nothing yet."""
        self._folder = root / ".licences"

    def allows(self, entry: Entry) -> bool:
        """Tells whether nothing stands against the entry's use.

        Raises:
            WeightsError: The record can't be read.
        """
        if not entry.accept_license or entry.license_accepted:
            return True
        return self.acceptance(entry) is not None

    def acceptance(self, entry: Entry) -> Acceptance | None:
        """Returns the record of the entry's present licence, if it was accepted here.

        Raises:
            WeightsError: The record can't be read.
        """
        path = self._path(entry)
        try:
            accepted = Acceptance.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValidationError) as err:
            raise WeightsError(
                f"{path} can't be read: accept the licence again", reason="LICENSE_NOT_ACCEPTED"
            ) from err
        same = (accepted.model, accepted.license) == (entry.id, entry.license)
        return accepted if same else None

    def accept(self, entry: Entry, *, by: str, at: datetime) -> Acceptance:
        """Records that `by` accepted the entry's licence.

        Args:
            entry: The model or adapter.
            by: Who, for people.
            at: When; aware.

        Raises:
            WeightsError: The disk does not take it.
        """
        accepted = Acceptance(model=entry.id, license=entry.license, by=by, at=at)
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = self._folder / f".{uuid.uuid4().hex}"
            draft.write_text(accepted.model_dump_json(indent=1) + "\n", encoding="utf-8")
            draft.replace(self._path(entry))
        return accepted

    def _path(self, entry: Entry) -> Path:
        return self._folder / f"{entry.id}.json"
