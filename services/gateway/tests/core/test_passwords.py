"""Passwords that are kept by themselves are put into the URLs of database and Redis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from redis.asyncio.connection import parse_url
from sqlalchemy import make_url

from atrium_gateway.passwords import with_password
from atrium_gateway.settings import GatewaySettings

DATABASE = "postgresql+psycopg://atrium@postgres:5432/atrium"
REDIS = "redis://redis:6379/0"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_password_arrives_as_it_is(password):
    database = make_url(with_password(DATABASE, SecretStr(password)))
    assert (database.username, database.password) == ("atrium", password)
    assert (database.host, database.port, database.database) == ("postgres", 5432, "atrium")
    redis = parse_url(with_password(REDIS, SecretStr(password)))
    assert (redis["password"], redis["host"], redis.get("username")) == (password, "redis", None)


def test_without_one_the_url_stays():
    assert with_password(DATABASE, None) == DATABASE


def test_settings_join_the_files_and_show_nothing(monkeypatch, tmp_path):
    (tmp_path / "postgres").write_text("p@ss:word\n")
    (tmp_path / "redis").write_text("r/e#d\n")
    monkeypatch.setenv("ATRIUM_GATEWAY_DATABASE_URL", DATABASE)
    monkeypatch.setenv("ATRIUM_GATEWAY_DATABASE_PASSWORD_FILE", str(tmp_path / "postgres"))
    monkeypatch.setenv("ATRIUM_GATEWAY_QUOTA_REDIS_URL", REDIS)
    monkeypatch.setenv("ATRIUM_GATEWAY_QUOTA_REDIS_PASSWORD_FILE", str(tmp_path / "redis"))
    settings = GatewaySettings()
    assert make_url(settings.resolved_database_url()).password == "p@ss:word"
    assert parse_url(settings.resolved_quota_redis_url() or "")["password"] == "r/e#d"
    assert "p@ss" not in repr(settings)
    assert "r/e#d" not in repr(settings)


@pytest.mark.parametrize(
    "values",
    [
        {"database_password": "x"},
        {"quota_redis_password": "x"},
        {"database_url": "postgresql://a:b@host/c", "database_password": "x"},
        {"database_url": "sqlite+aiosqlite:///a.db", "database_password": "x"},
        {"quota_redis_url": "redis://:b@host/0", "quota_redis_password": "x"},
    ],
    ids=["no database", "no redis", "database twice", "sqlite", "redis twice"],
)
def test_a_password_that_can_not_be_used_is_refused(values):
    with pytest.raises(ValidationError):
        GatewaySettings(**values)
