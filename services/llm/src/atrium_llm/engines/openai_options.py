"""What the catalogue says of a provider's text model."""

from typing import Literal

from atrium_common.openai_upstream import UpstreamOptions


class OpenAiOptions(UpstreamOptions):
    """Options of a provider's model in the catalogue."""

    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # noqa: S105
    """What a chat completion calls the limit; OpenAI's newer models want the second."""

    extensions: tuple[Literal["top_k", "min_p", "repetition_penalty", "min_tokens"], ...] = ()
    """Fields beyond OpenAI's API that the server takes."""

    reports_usage: bool = True
    """Ask for usage in the stream; unset it for a server that refuses the option."""
