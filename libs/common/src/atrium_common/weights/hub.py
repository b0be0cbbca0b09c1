"""Fetches weights from the model hub. `WeightStore` calls this.

`huggingface_hub` is an optional part (`atrium-common[hub]`) and imported only here: the
starter models need no hub. Its own variables (`HF_ENDPOINT`, `HF_TOKEN`,
`HF_HUB_OFFLINE`) hold.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

from atrium_common.catalogue import HubSource
from atrium_common.weights.errors import WeightsError


def fetch_hub(source: HubSource, folder: Path, *, fetched: Callable[[int], None]) -> None:
    """Downloads the source's files into `folder`; the caller checks their digests.

    Args:
        source: Repository, commit and files.
        folder: Where files go.
        fetched: Called with the size of each file once it is there.

    Raises:
        WeightsError: The hub or the repository can't be reached, or lacks a file.
        OSError: The disk does not take it.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
        errors = importlib.import_module("huggingface_hub.errors")
    except ImportError as err:
        raise WeightsError(
            "huggingface_hub is not installed: pip install 'atrium-common[hub]'",
            reason="MISSING_TOOL",
        ) from err
    patterns = [file.name for file in source.files] or list(source.allow) or None
    try:
        hub.snapshot_download(
            source.repository,
            revision=source.revision,
            local_dir=folder,
            allow_patterns=patterns,
        )
    except errors.GatedRepoError as err:
        raise WeightsError(
            f"{source.repository}: accept its terms on the hub, then set HF_TOKEN",
            reason="NO_ACCESS",
        ) from err
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as err:
        raise WeightsError(
            f"{source.repository}@{source.revision[:12]} is not on the hub, or not for this token",
            reason="NO_ACCESS",
        ) from err
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as err:
        raise WeightsError(
            f"no network: the hub can't be reached for {source.repository}", reason="NO_NETWORK"
        ) from err
    except errors.HfHubHTTPError as err:
        raise WeightsError(
            f"{source.repository}: the hub answered with an error", reason="FETCH_FAILED"
        ) from err
    for path in folder.rglob("*"):
        if path.is_file() and ".cache" not in path.relative_to(folder).parts:
            fetched(path.stat().st_size)
