"""Access lines: JSON for machines, a short line for a person."""

import io
import json

from atrium_gateway.middleware.access_log import AccessLine, AccessLog


def line(path: str, status: int = 200) -> AccessLine:
    return AccessLine(
        request_id="req_1",
        method="POST",
        path=path,
        status=status,
        seconds=0.0123,
        client="127.0.0.1",
        tenant="acme",
        model="fake-chat",
    )


async def test_json_lines_tell_everything() -> None:
    out = io.BytesIO()
    log = AccessLog(out, now=lambda: 0.0)
    log.write(line("/v1/chat/completions"))
    log.write(line("/health/live"))
    log.flush()
    first, second = (json.loads(text) for text in out.getvalue().splitlines())
    assert first["tenant"] == "acme"
    assert first["timestamp"].startswith("1970-01-01T00:00:00")
    assert second["path"] == "/health/live"


async def test_a_person_reads_short_lines_without_probes() -> None:
    out = io.BytesIO()
    log = AccessLog(out, console=True, now=lambda: 0.0)
    log.write(line("/v1/chat/completions"))
    log.write(line("/health/live"))
    log.write(line("/health/ready", status=503))
    log.write(line("/a\n1970-01-01 forged", status=404))
    log.flush()
    assert out.getvalue().decode().splitlines() == [
        "1970-01-01 00:00:00 POST /v1/chat/completions 200 12 ms acme fake-chat req_1",
        "1970-01-01 00:00:00 POST /health/ready 503 12 ms acme fake-chat req_1",
        r"1970-01-01 00:00:00 POST /a\n1970-01-01 forged 404 12 ms acme fake-chat req_1",
    ]
