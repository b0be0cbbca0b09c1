"""Errors of an outside provider as errors of ours, without its secrets.

A provider's text may hold keys, organisation names or addresses, so only what it says
about the caller's own request (400, 422) is passed on; the rest is for the log.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta

import openai

from atrium_common.errors import (
    AtriumError,
    InvalidArgument,
    Overloaded,
    TooLarge,
    Unavailable,
)
from atrium_llm.domain import Sampling

_LONGEST_MESSAGE = 300
_LONGEST_RETRY = timedelta(hours=1)
_RETRY_UNKNOWN = timedelta(seconds=1)


def from_openai_error(error: openai.OpenAIError, *, model: str, secret: str) -> AtriumError:
    """Turns an error of the client library into one of ours.

    Args:
        error: What the client raised.
        model: Catalogue id, for the message.
        secret: The key; blacked out where the provider repeats it.
    """
    if isinstance(error, openai.APIStatusError):
        return _from_status(error, model, secret)
    if isinstance(error, openai.APITimeoutError):
        return Unavailable(
            f"The provider of {model!r} did not answer in time.", retry_after=_RETRY_UNKNOWN
        )
    if isinstance(error, openai.APIConnectionError):
        return Unavailable(
            f"The provider of {model!r} can't be reached.", retry_after=_RETRY_UNKNOWN
        )
    return Unavailable(f"The provider of {model!r} broke its answer off.", reason="PROVIDER_FAILED")


def _from_status(error: openai.APIStatusError, model: str, secret: str) -> AtriumError:
    status = error.status_code
    if status in (400, 422):
        text = error_text(error.body).replace(secret, "[key]")[:_LONGEST_MESSAGE]
        return InvalidArgument(
            f"The provider of {model!r} refused the request: {text}",
            reason=(error.code or "INVALID_ARGUMENT").upper()[:64],
            field=_our_field(error.param),
        )
    if status == 413:
        return TooLarge(f"The request is too large for the provider of {model!r}.")
    if status == 429 and error.code != "insufficient_quota":
        return Overloaded(
            f"The provider of {model!r} is at its limit.",
            retry_after=retry_after(error.response.headers) or _RETRY_UNKNOWN,
        )
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


def _our_field(param: str | None) -> str | None:
    """Finds our field behind the provider's name for it; ``None`` if it is not plain."""
    names = {field.name for field in fields(Sampling)}
    if param in names:
        return f"job.sampling.{param}"
    return "job.chat.messages" if param and param.startswith("messages") else None


def error_text(body: object) -> str:
    """Returns the message of an error body; one sentence if it has none."""
    message = body.get("message") if isinstance(body, Mapping) else None
    text = message if isinstance(message, str) and message else "it gave no reason."
    return text


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Reads ``retry-after-ms`` or ``retry-after`` (seconds); at most one hour."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError, OverflowError):
            wait = timedelta(seconds=float(headers[name]) * unit)
            return min(max(wait, timedelta()), _LONGEST_RETRY)
    return None
