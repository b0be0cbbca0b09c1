"""A setting's value may be in a file, which its variable with ``_FILE`` names."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from atrium_common.settings import ServiceSettings
from atrium_common.variable_files import VariableFileError, read_variable


class LanternSettings(ServiceSettings):
    """Settings as a service writes them."""

    model_config = SettingsConfigDict(env_prefix="ATRIUM_LANTERN_")

    port: int = Field(default=7999, ge=0, le=65535)
    metrics_port: int = 8999
    token: SecretStr | None = None
    hosts: tuple[str, ...] = ()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file as `openssl rand -hex` writes it."""
    path = tmp_path / "credential"
    path.write_text("from-a-file-0123456789\n")
    return path


def test_a_file_gives_a_value(monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
    monkeypatch.setenv("ATRIUM_LANTERN_TOKEN_FILE", str(secret))
    settings = LanternSettings()
    assert settings.token is not None
    assert settings.token.get_secret_value() == "from-a-file-0123456789"


def test_numbers_and_lists_come_from_files_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "port").write_text("7001")
    (tmp_path / "hosts").write_text('["a", "b"]\n')
    monkeypatch.setenv("ATRIUM_LANTERN_PORT_FILE", str(tmp_path / "port"))
    monkeypatch.setenv("ATRIUM_LANTERN_HOSTS_FILE", str(tmp_path / "hosts"))
    settings = LanternSettings()
    assert (settings.port, settings.hosts) == (7001, ("a", "b"))


def test_an_own_name_wins_over_a_shared_one(
    monkeypatch: pytest.MonkeyPatch, secret: Path, tmp_path: Path
) -> None:
    (tmp_path / "shared").write_text("shared-by-everybody-0123\n")
    monkeypatch.setenv("ATRIUM_SERVICE_CREDENTIAL_FILE", str(tmp_path / "shared"))
    shared = LanternSettings().service_credential
    assert shared is not None
    assert shared.get_secret_value() == "shared-by-everybody-0123"
    monkeypatch.setenv("ATRIUM_LANTERN_SERVICE_CREDENTIAL_FILE", str(secret))
    own = LanternSettings().service_credential
    assert own is not None
    assert own.get_secret_value() == "from-a-file-0123456789"
    monkeypatch.delenv("ATRIUM_LANTERN_SERVICE_CREDENTIAL_FILE")
    monkeypatch.setenv("ATRIUM_LANTERN_SERVICE_CREDENTIAL", "stated-here-0123456789")
    stated = LanternSettings().service_credential
    assert stated is not None
    assert stated.get_secret_value() == "stated-here-0123456789"


def test_a_missing_file_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "absent"
    monkeypatch.setenv("ATRIUM_LANTERN_TOKEN_FILE", str(path))
    with pytest.raises(VariableFileError) as caught:
        LanternSettings()
    assert str(caught.value) == f"ATRIUM_LANTERN_TOKEN_FILE: {path}: No such file or directory"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"], ids=["empty", "newline", "binary"])
def test_a_file_without_a_value_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "odd").write_bytes(content)
    monkeypatch.setenv("ATRIUM_LANTERN_TOKEN_FILE", str(tmp_path / "odd"))
    with pytest.raises(VariableFileError, match=r"ATRIUM_LANTERN_TOKEN_FILE: .*odd"):
        LanternSettings()


@pytest.mark.parametrize("prefix", ["ATRIUM_LANTERN_", "ATRIUM_"])
def test_a_value_given_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, secret: Path, prefix: str
) -> None:
    monkeypatch.setenv(f"{prefix}SERVICE_CREDENTIAL", "stated-here-0123456789")
    monkeypatch.setenv(f"{prefix}SERVICE_CREDENTIAL_FILE", str(secret))
    with pytest.raises(VariableFileError, match=f"both {prefix}SERVICE_CREDENTIAL and"):
        LanternSettings()


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
    monkeypatch.setenv("ATRIUM_LANTERN_TOKEN", "")
    monkeypatch.setenv("ATRIUM_LANTERN_PORT_FILE", "")
    monkeypatch.setenv("ATRIUM_LANTERN_TOKEN_FILE", str(secret))
    settings = LanternSettings()
    assert settings.token is not None
    assert settings.port == 7999


@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    """With one newline after it or none where the value ends in none itself."""
    path = tmp_path_factory.mktemp("values") / "value"
    path.write_text(value + "\n", encoding="utf-8", newline="")
    assert read_variable("X", {"X_FILE": str(path)}) == value
