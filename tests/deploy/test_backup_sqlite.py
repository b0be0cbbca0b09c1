"""The two scripts over an installation without containers and servers, as `make run` makes one."""

import fcntl
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.backups import DAMAGED, HAS_DATA, run


@dataclass(frozen=True)
class Laptop:
    """A state folder with a database that a gateway has open.

    Attributes:
        state: The folder.
        gateway: The gateway's connection; what it committed last is in the write-ahead log.
        variables: For the scripts.
    """

    state: Path
    gateway: sqlite3.Connection
    variables: dict[str, str]

    def tenants(self) -> list[str]:
        with closing(sqlite3.connect(self.state / "gateway.db")) as connection:
            return [row[0] for row in connection.execute("SELECT id FROM tenants")]


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    state = tmp_path / ".atrium"
    (state / "spool").mkdir(parents=True)
    (state / "spool/1").write_text("kept")
    (state / "key.pepper").write_text("PEPPER")
    (state / "models").mkdir()
    (state / "models/large").write_text("weights")
    variables = {
        "ATRIUM_BACKUP_DATABASE_URL": f"sqlite+aiosqlite:///{state / 'gateway.db'}",
        "ATRIUM_BACKUP_STATE_DIR": str(state),
        "ATRIUM_BACKUP_VOICES_DIR": str(state / "voices"),
        "SECRETS_DIR": str(tmp_path / "none"),
    }
    with closing(sqlite3.connect(state / "gateway.db")) as gateway:
        gateway.execute("PRAGMA journal_mode = WAL")
        gateway.execute("CREATE TABLE tenants (id text)")
        gateway.execute("CREATE TABLE usage_events (id text)")
        gateway.execute("INSERT INTO tenants VALUES ('acme')")
        gateway.commit()
        yield Laptop(state, gateway, variables)


def backed_up(laptop: Laptop, folder: Path) -> Path:
    status, said = run("backup.sh", laptop.variables, folder)
    assert status == 0, said
    assert "not in it: voices (there is no " in said
    assert "key.pepper" in said
    (backup,) = folder.glob("atrium-2*")
    return backup


def test_what_was_lost_is_there_again(laptop: Laptop, tmp_path: Path) -> None:
    laptop.gateway.execute("INSERT INTO tenants VALUES ('half')")  # in the midst of a transaction
    backup = backed_up(laptop, tmp_path / "backups")
    names = {file.name for file in backup.iterdir()}
    assert {"database.sqlite", "state.tar.gz"} <= names
    assert "redis.rdb" not in names
    laptop.gateway.close()
    shutil.rmtree(laptop.state)
    status, said = run("restore.sh", laptop.variables, backup)
    assert status == 0, said
    assert laptop.tenants() == ["acme"]
    assert (laptop.state / "spool/1").read_text() == "kept"
    assert not (laptop.state / "models").exists()
    assert not [file for file in laptop.state.iterdir() if file.name.startswith("gateway.db-")]


def test_data_is_replaced_by_force_alone_and_never_under_a_gateway(
    laptop: Laptop, tmp_path: Path
) -> None:
    backup = backed_up(laptop, tmp_path / "backups")
    laptop.gateway.execute("UPDATE tenants SET id = 'newer'")
    laptop.gateway.commit()
    status, said = run("restore.sh", laptop.variables, backup)
    assert (status, "--force replaces it" in said) == (HAS_DATA, True), said
    with (laptop.state / "gateway.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, said = run("restore.sh", laptop.variables, "--force", backup)
        assert (status, "a gateway runs over this database" in said) == (1, True), said
    assert laptop.tenants() == ["newer"]
    laptop.gateway.close()
    status, said = run("restore.sh", laptop.variables, "--force", backup)
    assert status == 0, said
    assert laptop.tenants() == ["acme"]


def test_what_is_no_whole_backup_of_such_an_installation_touches_nothing(
    laptop: Laptop, tmp_path: Path
) -> None:
    backup = backed_up(laptop, tmp_path / "backups")
    whole = (backup / "database.sqlite").read_bytes()
    (backup / "database.sqlite").write_bytes(b"no database")
    assert run("restore.sh", laptop.variables, "--force", backup)[0] == DAMAGED
    (backup / "database.sqlite").rename(backup / "database.dump")
    sums = subprocess.run(
        ["sha256sum", "database.dump"], cwd=backup, capture_output=True, check=True
    )
    (backup / "SHA256SUMS").write_bytes(sums.stdout)
    status, said = run("restore.sh", laptop.variables, "--force", backup)
    assert (status, "another kind of database" in said) == (DAMAGED, True), said
    (backup / "database.sqlite").write_bytes(whole[:-4096])
    sums = subprocess.run(
        ["sha256sum", "database.sqlite"], cwd=backup, capture_output=True, check=True
    )
    (backup / "SHA256SUMS").write_bytes(sums.stdout)
    status, said = run("restore.sh", laptop.variables, "--force", backup)
    assert (status, "the database is as it was" in said) == (1, True), said
    assert laptop.tenants() == ["acme"]
