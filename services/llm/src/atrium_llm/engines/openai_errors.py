"""Errors of an outside provider of texts as errors of ours; `engines/openai.py` asks."""

from dataclasses import fields

import openai

from atrium_common import openai_upstream
from atrium_common.errors import AtriumError
from atrium_llm.domain import Sampling


def from_openai_error(error: openai.OpenAIError, *, model: str, secret: str) -> AtriumError:
    """Turns an error of the client library into one of ours.

    Args:
        error: What the client raised.
        model: Catalogue id, for the message.
        secret: The key; blacked out where the provider repeats it.
    """
    return openai_upstream.from_openai_error(error, model=model, secret=secret, field_of=_our_field)


def _our_field(param: str) -> str | None:
    """Finds our field behind the provider's name for it; ``None`` if it is not plain."""
    names = {field.name for field in fields(Sampling)}
    if param in names:
        return f"job.sampling.{param}"
    return "job.chat.messages" if param.startswith("messages") else None
