"""Settings find their shared values; logs are one event per line and hold no secret."""

import io
import json
import logging
from pathlib import Path

import pytest
import structlog
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from atrium_common.context import RequestContext, bind_context
from atrium_common.logs import configure_logging
from atrium_common.settings import ServiceSettings, read_settings


class EchoSettings(ServiceSettings):
    """Settings as a service writes them."""

    model_config = SettingsConfigDict(env_prefix="ATRIUM_ECHO_")

    port: int = Field(default=7999, ge=0, le=65535)
    metrics_port: int = 8999


def test_own_prefix_wins_over_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATRIUM_SERVICE_CREDENTIAL", "shared-credential-1")
    monkeypatch.setenv("ATRIUM_MAX_QUEUE", "7")
    monkeypatch.setenv("ATRIUM_ECHO_MAX_QUEUE", "9")
    monkeypatch.setenv("ATRIUM_ECHO_PORT", "")
    settings = EchoSettings()
    assert settings.service_credential is not None
    assert settings.service_credential.get_secret_value() == "shared-credential-1"
    assert (settings.max_queue, settings.port) == (9, 7999)
    assert "shared-credential" not in repr(settings)


def test_given_values_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATRIUM_ECHO_PORT", "1")
    assert EchoSettings(port=2).port == 2


def test_the_models_that_are_offered_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EchoSettings().models == ()
    monkeypatch.setenv("ATRIUM_MODELS", "one, two,")
    assert EchoSettings().models == ("one", "two")
    monkeypatch.setenv("ATRIUM_CATALOGUE", str(Path(__file__).parents[3] / "models/fake.yaml"))
    monkeypatch.setenv("ATRIUM_MODELS", "fake-chat")
    assert [entry.id for entry in EchoSettings().open_catalogue()] == ["fake-chat"]


@pytest.mark.parametrize(
    "values",
    [
        {"port": 70_000},
        {"service_credential": "short"},
        {"max_queue": 0},
        {"log_level": "chatty"},
        {"tls_certificate": Path("a.pem")},
        {"tls_client_ca": Path("ca.pem")},
    ],
)
def test_refuses_settings_that_can_not_work(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EchoSettings(**values)


def test_what_is_wrong_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATRIUM_SERVICE_CREDENTIAL", "swordfish")
    with pytest.raises(SystemExit, match="service_credential") as end:
        read_settings(EchoSettings)
    assert "swordfish" not in str(end.value)
    monkeypatch.setenv("ATRIUM_SERVICE_CREDENTIAL", "")
    monkeypatch.setenv("ATRIUM_SERVICE_CREDENTIAL_FILE", "/nowhere")
    with pytest.raises(SystemExit, match="ATRIUM_SERVICE_CREDENTIAL_FILE: /nowhere: No such file"):
        read_settings(EchoSettings)


@pytest.fixture
def output(logs_as_before: None) -> io.StringIO:
    """Captures the log; logging is restored after the test."""
    return io.StringIO()


def test_events_are_json_with_the_request(output: io.StringIO) -> None:
    configure_logging("echo", "info", "json", stream=output)
    bind_context(RequestContext(request_id="r-1", tenant="acme"))
    structlog.get_logger().info("done", output_tokens=3)
    structlog.get_logger().debug("unseen")
    logging.getLogger("library").warning("careful %s", "now")
    first, second = (json.loads(line) for line in output.getvalue().splitlines())
    assert first["event"] == "done"
    assert (first["service"], first["request_id"], first["tenant"]) == ("echo", "r-1", "acme")
    assert (first["level"], first["output_tokens"]) == ("info", 3)
    assert second["event"] == "careful now"
    assert second["level"] == "warning"


@pytest.mark.parametrize("format", ["json", "console"])
def test_secrets_are_hidden(output: io.StringIO, format: str) -> None:
    configure_logging("echo", "info", format, stream=output)
    structlog.get_logger().info(
        "call",
        authorization="Bearer swordfish",
        api_key="swordfish",
        prompt="swordfish",
        metadata={"x-atrium-service": "swordfish", "x-request-id": "r"},
    )
    text = output.getvalue()
    assert "swordfish" not in text
    assert text.count("[redacted]") == 4


def test_an_error_is_one_line_with_its_traceback(output: io.StringIO) -> None:
    configure_logging("echo", "info", "json", stream=output)
    try:
        raise ValueError("why")
    except ValueError as error:
        structlog.get_logger().error("failed", exc_info=error)
    (line,) = output.getvalue().splitlines()
    assert json.loads(line)["exception"][0]["exc_type"] == "ValueError"


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(output: io.StringIO, format: str) -> None:
    """They hold prompts, media and keys."""
    configure_logging("echo", "info", format, stream=output)

    def draw(prompt: str) -> None:
        raise RuntimeError("it broke")

    held = "a secret wish".removeprefix("-")
    for log in (structlog.get_logger().exception, logging.getLogger("library").exception):
        try:
            draw(held)
        except RuntimeError:
            log("unhandled exception")
    assert output.getvalue().count("RuntimeError") >= 2
    assert held not in output.getvalue()
