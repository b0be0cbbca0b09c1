"""What the catalogue says of a provider's model, and where its key is read from."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from atrium_llm.engines.options import EngineOptions


class OpenAiOptions(EngineOptions):
    """Options of a provider's model in the catalogue."""

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

    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # noqa: S105
    """What a chat completion calls the limit; OpenAI's newer models want the second."""

    extensions: tuple[Literal["top_k", "min_p", "repetition_penalty", "min_tokens"], ...] = ()
    """Fields beyond OpenAI's API that the server takes."""

    reports_usage: bool = True
    """Ask for usage in the stream; unset it for a server that refuses the option."""

    max_concurrency: int = Field(default=32, ge=1)
    """Requests at once; the largest of the engine's models counts."""


def read_key(options: OpenAiOptions) -> str:
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
