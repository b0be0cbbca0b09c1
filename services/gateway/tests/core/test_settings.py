"""Settings: the shared prefix, the secrets that keep themselves, what is refused."""

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from atrium_gateway.quota.limits import Window
from atrium_gateway.settings import GatewaySettings


def test_the_gateways_own_variable_goes_before_the_shared_one(monkeypatch):
    monkeypatch.setenv("ATRIUM_LOG_LEVEL", "error")
    assert GatewaySettings().log_level == "error"
    monkeypatch.setenv("ATRIUM_GATEWAY_LOG_LEVEL", "debug")
    assert GatewaySettings().log_level == "debug"


def test_the_default_limit_is_a_hundred_requests_an_hour_and_can_be_lifted(monkeypatch):
    assert GatewaySettings().default_limit == 100
    assert GatewaySettings().default_limit_window is Window.HOUR
    monkeypatch.setenv("ATRIUM_GATEWAY_DEFAULT_LIMIT", "none")
    assert GatewaySettings().default_limit is None


SHOW_SECRET = """
from atrium_gateway.settings import GatewaySettings
print(GatewaySettings().resolved_jwt_secret().decode())
"""


def test_processes_that_start_together_agree_on_one_private_secret(tmp_path):
    environment = {**os.environ, "ATRIUM_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-c", SHOW_SECRET]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(4)]
    made = {process.communicate(timeout=30)[0].strip() for process in running}
    assert len(made) == 1
    assert len(made.pop()) >= 32
    file = tmp_path / "state" / "jwt.secret"
    assert file.stat().st_mode & 0o077 == 0
    assert [each.name for each in file.parent.iterdir()] == ["jwt.secret"]


def test_a_short_secret_is_refused(tmp_path):
    with pytest.raises(ValueError, match="fewer than 32"):
        GatewaySettings(state_dir=tmp_path, jwt_secret="short").resolved_jwt_secret()
    with pytest.raises(ValidationError):
        GatewaySettings(service_credential="short")


def test_secrets_do_not_show(tmp_path):
    settings = GatewaySettings(state_dir=tmp_path, jwt_secret="s" * 40, key_pepper="p" * 40)
    assert "s" * 40 not in repr(settings)
    assert "p" * 40 not in repr(settings)
