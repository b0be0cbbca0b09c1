"""Structured logs of one process: one event per line, with the request's id, no secrets.

Each `__main__` calls `configure_logging` once; all code gets its logger from structlog.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog
from structlog.typing import Processor

from atrium_common.context import find_context
from atrium_common.telemetry.spans import present_trace

_SECRET_WORDS: Final = (
    "authorization",
    "credential",
    "password",
    "secret",
    "api_key",
    "apikey",
    "token",
    "prompt",
    "x-atrium-service",
)
_COUNTS_OF_TOKENS: Final = ("_tokens", "token_id", "token_count")


def configure_logging(
    service: str, level: str = "info", format: str = "json", *, stream: TextIO | None = None
) -> None:
    """Sets up structlog, and the standard library's logging through it.

    Args:
        service: Stands in every event, e.g. ``"llm"``.
        level: Least severe event shown: debug, info, warning or error.
        format: ``"json"``, or ``"console"`` for a person.
        stream: Where to write; standard error by default.
    """
    out = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        _Service(service),
        _add_request,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last = _json() if format == "json" else _console(colors=out.isatty())
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries tell their life's story at INFO; ours is in structlog.
    root.setLevel(max(number, logging.WARNING))


def _json() -> list[Processor]:
    # Local variables hold prompts, media and keys: no traceback shows them.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(tracebacks),
        _redact,
        structlog.processors.JSONRenderer(),
    ]


def _console(*, colors: bool) -> list[Processor]:
    formatter = structlog.dev.plain_traceback  # the rich one shows local variables
    return [_redact, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=formatter)]


class _Service:
    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(
        self, logger: Any, name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event.setdefault("service", self._service)
        return event


def _add_request(
    logger: Any, name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    context = find_context()
    if context is not None:
        event.setdefault("request_id", context.request_id)
        if context.tenant:
            event.setdefault("tenant", context.tenant)
    present = present_trace()
    if present is not None:
        event.setdefault("trace_id", present[0])
        event.setdefault("span_id", present[1])
    return event


def _redact(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hides values whose key names a secret, one level of mappings deep."""
    for key, value in event.items():
        if _is_secret(key):
            event[key] = "[redacted]"
        elif isinstance(value, Mapping):
            event[key] = {
                inner: "[redacted]" if _is_secret(str(inner)) else held
                for inner, held in value.items()
            }
    return event


def _is_secret(key: str) -> bool:
    lowered = key.lower()
    if any(part in lowered for part in _COUNTS_OF_TOKENS):
        return False
    return any(word in lowered for word in _SECRET_WORDS)
