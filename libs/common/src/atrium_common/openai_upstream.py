"""What every engine over an OpenAI-compatible server needs: options, key, client, errors.

The `openai` engines of the services import it, and with it the `openai` package of their
extra. A provider's text may hold keys, organisation names or addresses, so only what it
says about the caller's own request (400, 422) is passed on; the rest is for the log.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import openai
import structlog
from pydantic import Field

from atrium_common.engine_options import EngineOptions
from atrium_common.errors import (
    AtriumError,
    InvalidArgument,
    Overloaded,
    TooLarge,
    Unavailable,
)

_log = structlog.get_logger(__name__)

_CONNECT_SECONDS = 10.0
_LONGEST_MESSAGE = 300
_LONGEST_RETRY = timedelta(hours=1)
_RETRY_UNKNOWN = timedelta(seconds=1)


class UpstreamOptions(EngineOptions):
    """Options that a provider's model has in the catalogue, whatever it does."""

    base_url: str = Field(pattern=r"^https?://")
    """Address of the API, e.g. ``https://api.openai.com/v1``."""

    model: str | None = None
    """The provider's name of the model; unset takes the catalogue id."""

    api_key_env: str | None = None
    """Environment variable that holds the key."""

    api_key_file: Path | None = None
    """File that holds the key, e.g. a mounted secret."""

    organization: str | None = None
    """Organisation that the provider bills, where it asks for one."""

    timeout_seconds: float = Field(default=120.0, gt=0)
    """Longest silence of the provider before it counts as gone."""

    max_concurrency: int = Field(default=32, ge=1)
    """Requests at once; the largest of the engine's models counts."""


def read_key(options: UpstreamOptions) -> str:
    """Reads the key; raises `LookupError` that says what is missing, not what it holds."""
    if options.api_key_file is not None:
        try:
            key = options.api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            key = ""
        if not key:
            raise LookupError(f"no key in the file {options.api_key_file}")
        return key
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env, "")
        if not key:
            raise LookupError(f"the variable {options.api_key_env} is not set")
        return key
    # Servers on one's own machine ask for no key, but the client library does.
    return "none"


def make_client(options: UpstreamOptions) -> openai.AsyncOpenAI:
    """Makes the client of a provider; the caller closes it.

    Raises:
        LookupError: The key is missing, as by `read_key`.
    """
    return openai.AsyncOpenAI(
        base_url=options.base_url,
        api_key=read_key(options),
        organization=options.organization,
        timeout=openai.Timeout(options.timeout_seconds, connect=_CONNECT_SECONDS),
        # Trying again is for the caller, who knows the deadline and the route.
        max_retries=0,
    )


def from_openai_error(
    error: openai.OpenAIError,
    *,
    model: str,
    secret: str,
    field_of: Callable[[str], str | None],
) -> AtriumError:
    """Turns an error of the client library into one of ours.

    Args:
        error: What the client raised.
        model: Catalogue id, for the message.
        secret: The key; blacked out where the provider repeats it.
        field_of: Finds our field behind the provider's name of a parameter; ``None`` if
            it is not plain.
    """
    if isinstance(error, openai.APIStatusError):
        return _from_status(error, model, secret, field_of)
    if isinstance(error, openai.APITimeoutError):
        return silent(model)
    if isinstance(error, openai.APIConnectionError):
        return Unavailable(
            f"The provider of {model!r} can't be reached.", retry_after=_RETRY_UNKNOWN
        )
    return broken(model)


def silent(model: str) -> Unavailable:
    """Makes the error of a provider that says nothing for too long."""
    return Unavailable(
        f"The provider of {model!r} did not answer in time.", retry_after=_RETRY_UNKNOWN
    )


def broken(model: str) -> Unavailable:
    """Makes the error of an answer that ends before its end, or is none."""
    return Unavailable(f"The provider of {model!r} broke its answer off.", reason="PROVIDER_FAILED")


def _from_status(
    error: openai.APIStatusError, model: str, secret: str, field_of: Callable[[str], str | None]
) -> AtriumError:
    status = error.status_code
    if status in (400, 422):
        text = error_text(error.body).replace(secret, "[key]")[:_LONGEST_MESSAGE]
        return InvalidArgument(
            f"The provider of {model!r} refused the request: {text}",
            reason=(error.code or "INVALID_ARGUMENT").upper()[:64],
            field=field_of(error.param) if error.param else None,
        )
    if status == 413:
        return TooLarge(f"The request is too large for the provider of {model!r}.")
    if status == 429 and error.code != "insufficient_quota":
        return Overloaded(
            f"The provider of {model!r} is at its limit.",
            retry_after=retry_after(error.response.headers) or _RETRY_UNKNOWN,
        )
    # Which of them it is, is for the operator: the status says it, the text may hold keys.
    _log.warning("provider_failed", model=model, status=status)
    if status in (401, 403, 404, 429):
        # A wrong key, a wrong model name, an account without credit: ours to mend.
        return Unavailable(
            f"The provider of {model!r} does not serve this installation.",
            reason="PROVIDER_REFUSED",
        )
    return Unavailable(
        f"The provider of {model!r} failed.",
        reason="PROVIDER_FAILED",
        retry_after=retry_after(error.response.headers),
    )


def error_text(body: object) -> str:
    """Returns the message of an error body; one sentence if it has none."""
    message = body.get("message") if isinstance(body, Mapping) else None
    return message if isinstance(message, str) and message else "it gave no reason."


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Reads ``retry-after-ms`` or ``retry-after`` (seconds); at most one hour."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError, OverflowError):
            wait = timedelta(seconds=float(headers[name]) * unit)
            return min(max(wait, timedelta()), _LONGEST_RETRY)
    return None
