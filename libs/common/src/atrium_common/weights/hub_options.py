"""How the model hub is reached: address, token, patience. `WeightStore` and the CLI read it.

The names of the variables are those of the hub's own library, so that a machine which is set
up for that needs nothing new; `ATRIUM_OFFLINE` also keeps package managers from the network.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atrium_common.weights.errors import WeightsError

DEFAULT_ENDPOINT = "https://huggingface.co"
_YES = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class HubOptions:
    """How `fetch_hub` works.

    Attributes:
        endpoint: Address of the hub or of a mirror, without a slash at the end.
        token: Sent to the endpoint's own host, and to no other.
        offline: True to ask nobody.
        jobs: Files that are fetched at once, 1 or more.
        attempts: Times that a file is asked for without a byte of progress.
        backoff_seconds: Wait before the second attempt; doubles with each, up to half a minute.
        timeout_seconds: Silence after which a connection counts as cut.
    """

    endpoint: str = DEFAULT_ENDPOINT
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    jobs: int = 4
    attempts: int = 6
    backoff_seconds: float = 0.5
    timeout_seconds: float = 30.0

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, jobs: int = 4
    ) -> "HubOptions":
        """Reads HF_ENDPOINT, HF_TOKEN (HF_TOKEN_FILE, HF_TOKEN_PATH), and the offline variables.

        Raises:
            WeightsError: The token's file can't be read, or the endpoint is no web address.
        """
        variables = os.environ if environment is None else environment
        endpoint = (variables.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        if not endpoint.startswith(("https://", "http://")):
            raise WeightsError(
                f"HF_ENDPOINT is {endpoint!r}, which is no web address", reason="NO_ACCESS"
            )
        return cls(
            endpoint=endpoint,
            token=_token(variables),
            offline=is_offline(variables) or _is_set(variables, "HF_HUB_OFFLINE"),
            jobs=jobs,
        )


def is_offline(environment: Mapping[str, str] | None = None) -> bool:
    """Tells whether ATRIUM_OFFLINE forbids to fetch anything."""
    return _is_set(os.environ if environment is None else environment, "ATRIUM_OFFLINE")


def _is_set(variables: Mapping[str, str], name: str) -> bool:
    return variables.get(name, "").strip().lower() in _YES


def _token(variables: Mapping[str, str]) -> str | None:
    if token := variables.get("HF_TOKEN", "").strip():
        return token
    for name in ("HF_TOKEN_FILE", "HF_TOKEN_PATH"):
        if path := variables.get(name):
            try:
                return Path(path).read_text(encoding="utf-8").strip() or None
            except (OSError, UnicodeDecodeError) as err:
                raise WeightsError(f"{name}: {path} can't be read", reason="NO_ACCESS") from err
    return None
