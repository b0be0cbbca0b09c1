"""`deploy/backup.sh` and `deploy/restore.sh` with real servers, and a gateway before and after."""

import asyncio
import io
import os
import shutil
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from atrium_gateway.database import open_engine
from atrium_gateway.testing.servers import redis_server
from tests.chaos.books import counted
from tests.kit.backups import DAMAGED, HAS_DATA, run
from tests.kit.fakes import running_fakes
from tests.kit.stack import GatewayProcess, Stack, running_stack
from tests.kit.tenancy import events_of, make_tenant

_REQUESTS = 4
CHAT = {"model": "fake-chat", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}


def hum(seconds: int) -> bytes:
    """A WAV file with something to hear."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((b"\x00\x10" * 40 + b"\x00\xf0" * 40) * (200 * seconds))
    return file.getvalue()


@dataclass(frozen=True)
class Installation:
    """A suite, and what is in it.

    Attributes:
        stack: Its servers.
        folder: Of voices and backups.
        variables: For the scripts.
    """

    stack: Stack
    folder: Path
    variables: Mapping[str, str]

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    def destroy(self) -> None:
        """Loses everything that was not copied elsewhere."""
        (gateway,) = self.stack.gateways
        assert self.stack.postgres is not None
        assert self.stack.redis is not None
        gateway.kill()
        with psycopg.connect(self.stack.postgres.dsn(), autocommit=True) as connection:
            connection.execute("DROP DATABASE atrium WITH (FORCE)")
            connection.execute("CREATE DATABASE atrium")
        self.stack.redis.kill()
        self.stack.redis.wipe()
        self.stack.redis.start()
        for kept in ("ATRIUM_BACKUP_STATE_DIR", "ATRIUM_BACKUP_VOICES_DIR"):
            shutil.rmtree(self.variables[kept])


@pytest.fixture(scope="module")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    folder = tmp_path_factory.mktemp("backup")
    with running_stack(folder, postgres=True, redis=True, started=False) as stack:
        assert stack.redis is not None
        yield Installation(
            stack,
            folder,
            {
                "ATRIUM_BACKUP_DATABASE_URL": stack.database_url,
                "ATRIUM_BACKUP_REDIS_URL": stack.redis.url,
                "ATRIUM_BACKUP_STATE_DIR": stack.environments[0]["ATRIUM_GATEWAY_STATE_DIR"],
                "ATRIUM_BACKUP_VOICES_DIR": str(folder / "voices"),
                "SECRETS_DIR": str(folder / "secrets"),
            },
        )


@asynccontextmanager
async def serving(installation: Installation) -> AsyncIterator[GatewayProcess]:
    """The suite, running; killed at the end, as a machine that is lost."""
    stack = installation.stack
    async with AsyncExitStack() as running:
        await running.enter_async_context(
            running_fakes(
                installation.folder, admission_target=stack.authority, ports=stack.service_ports
            )
        )
        (gateway,) = stack.gateways
        running.callback(gateway.kill)
        await asyncio.to_thread(gateway.start)
        yield gateway


async def told(client: httpx.AsyncClient) -> dict[str, Any]:
    """What the tenant sees of its usage, its limits and its voices."""
    usage = (await client.get("/api/usage")).json()["totals"]
    summary = (await client.get("/api/usage/summary")).json()
    voices = (await client.get("/api/voices")).json()["voices"]
    limits = {limit["name"]: limit["used"] for limit in summary["limits"]}
    return {"usage": usage, "limits": limits, "voices": [v for v in voices if v["cloned"]]}


async def test_what_was_backed_up_is_there_again(installation: Installation) -> None:
    """A key, its limits' counters, the totals and a voice survive the loss of everything."""
    limits = [("requests", "month", 100), ("tokens", "day", 100_000)]
    async with serving(installation) as gateway:
        key = await asyncio.to_thread(
            make_tenant, installation.stack.environments[0], "acme", limits
        )
        caller = {"base_url": gateway.url, "headers": {"authorization": f"Bearer {key}"}}
        async with httpx.AsyncClient(**caller) as client:
            form = {"name": "Mine", "consent": "true"}
            file = {"file": ("me.wav", hum(8))}
            made = await client.post("/api/voices", data=form, files=file)
            assert made.status_code == 201, made.text
            for _ in range(_REQUESTS):
                assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
            await booked(installation, _REQUESTS)
            before = await told(client)
            assert len(before["voices"]) == 1
            status, said = await asyncio.to_thread(
                run, "backup.sh", installation.variables, installation.backups
            )
            assert status == 0, said
            assert "without key_pepper no API key works" in said
    (backup,) = installation.backups.glob("atrium-*")
    status, said = run("restore.sh", installation.variables, backup)
    assert (status, "--force replaces it" in said) == (HAS_DATA, True), said
    installation.destroy()

    status, said = run("restore.sh", installation.variables, backup)
    assert status == 0, said
    async with serving(installation) as gateway, httpx.AsyncClient(**caller) as client:
        assert await told(client) == before
        events = await booked(installation, _REQUESTS)
        requests, tokens = counted(events)
        assert requests >= _REQUESTS
        assert sorted(before["limits"].values()) == sorted([requests, tokens])
        assert before["usage"]["requests"] == requests
        # It goes on counting where it was.
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        await booked(installation, _REQUESTS + 1)
        after = await told(client)
        grown = [after["limits"][name] - before["limits"][name] for name in before["limits"]]
        assert 1 in grown
        voice = {"model": "fake-speech", "voice": before["voices"][0]["id"], "input": "Hello."}
        assert (await client.post("/v1/audio/speech", json=voice)).status_code == 200


async def booked(installation: Installation, count: int) -> list[dict[str, Any]]:
    """Waits for a number of answers in the ledger."""
    engine = open_engine(installation.stack.database_url)
    try:
        async with asyncio.timeout(20):
            while True:
                events = await events_of(engine, "acme")
                if sum(event["capability"] == "chat" for event in events) >= count:
                    return events
                await asyncio.sleep(0.05)
    finally:
        await engine.dispose()


@pytest.fixture
def small(installation: Installation, tmp_path: Path) -> Installation:
    """A database and a Redis with a row each, and files, without a gateway."""
    stack, variables = installation.stack, dict(installation.variables)
    assert stack.postgres is not None
    name = f"small_{os.urandom(4).hex()}"
    with psycopg.connect(stack.postgres.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    variables["ATRIUM_BACKUP_DATABASE_URL"] = stack.postgres.dsn(name)
    with psycopg.connect(stack.postgres.dsn(name), autocommit=True) as connection:
        connection.execute("CREATE TABLE tenants (id text)")
        connection.execute("CREATE TABLE usage_events (id text)")
        connection.execute("INSERT INTO tenants VALUES ('acme')")
    for kind in ("state", "voices"):
        folder = tmp_path / kind / ("spool" if kind == "state" else "of-acme")
        folder.mkdir(parents=True)
        (folder / "1").write_text("kept")
        variables[f"ATRIUM_BACKUP_{kind.upper()}_DIR"] = str(tmp_path / kind)
    (tmp_path / "state/jwt.secret").write_text("a secret")
    return replace(installation, folder=tmp_path, variables=variables)


def tenants(small: Installation) -> list[str]:
    url = small.variables["ATRIUM_BACKUP_DATABASE_URL"]
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM tenants")]


def backed_up(small: Installation, *arguments: str | Path) -> Path:
    status, said = run("backup.sh", small.variables, *arguments, small.backups)
    assert status == 0, said
    return max(small.backups.glob("atrium-2*"))


def test_a_damaged_backup_touches_nothing(small: Installation) -> None:
    backup = backed_up(small)
    dump = backup / "database.dump"
    whole = dump.read_bytes()
    dump.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    status, said = run("restore.sh", small.variables, "--force", backup)
    assert (status, "nothing was touched" in said) == (DAMAGED, True)
    (backup / "SHA256SUMS").unlink()
    assert run("restore.sh", small.variables, "--force", backup)[0] == DAMAGED
    assert tenants(small) == ["acme"]


def test_what_can_not_be_restored_leaves_the_database_as_it_was(small: Installation) -> None:
    backup = backed_up(small)
    (backup / "database.dump").write_bytes(b"no dump")
    names = sorted(file.name for file in backup.iterdir() if file.name != "SHA256SUMS")
    sums = subprocess.run(["sha256sum", *names], cwd=backup, capture_output=True, check=True)
    (backup / "SHA256SUMS").write_bytes(sums.stdout)
    assert run("restore.sh", small.variables, "--force", backup)[0] == 1
    assert tenants(small) == ["acme"]
    assert (small.folder / "state/spool/1").read_text() == "kept"


def test_force_replaces_what_is_there(small: Installation) -> None:
    backup = backed_up(small)
    url = small.variables["ATRIUM_BACKUP_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE tenants SET id = 'other'")
        connection.execute("CREATE TABLE newer (id int)")
    (small.folder / "state/spool/2").write_text("later")
    (small.folder / "voices/of-other").mkdir()
    assert run("restore.sh", small.variables, backup)[0] == HAS_DATA
    status, said = run("restore.sh", small.variables, "--force", backup)
    assert status == 0, said
    assert tenants(small) == ["acme"]
    files = [str(path.relative_to(small.folder)) for path in small.folder.glob("[sv]*/*/*")]
    assert sorted(files) == ["state/spool/1", "voices/of-acme/1"]
    assert not (small.folder / "voices/of-other").exists()


def test_a_backup_that_fails_leaves_no_trace(small: Installation) -> None:
    away = {**small.variables, "ATRIUM_BACKUP_REDIS_URL": "redis://127.0.0.1:1/0"}
    status, _ = run("backup.sh", away, small.backups)
    assert status == 1
    assert [path.name for path in small.backups.iterdir()] == [".lock"]


def test_the_newest_stay_and_two_do_not_run_at_once(small: Installation) -> None:
    for day in range(1, 6):
        old = small.backups / f"atrium-2026010{day}T000000Z"
        old.mkdir(parents=True)
        (old / "SHA256SUMS").touch()
    (small.backups / "atrium-notes").mkdir()
    newest = backed_up(small, "--keep", "3")
    left = sorted(path.name for path in small.backups.glob("atrium-*"))
    assert left == [
        *("atrium-20260104T000000Z", "atrium-20260105T000000Z"),
        *sorted([newest.name, "atrium-notes"]),
    ]
    holder = [
        "flock",
        small.backups / ".lock",
        sys.executable,
        "-c",
        "print('held', flush=True); input()",
    ]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == b"held\n"
        assert run("backup.sh", small.variables, small.backups)[0] == 3
        held.communicate(b"\n")
    for wrong in (("--keep", "0"), ("--nothing",), ("--secrets", "/nonexistent")):
        assert run("backup.sh", small.variables, *wrong, small.backups)[0] == 2


def test_secrets_are_in_it_only_under_a_passphrase(small: Installation) -> None:
    (small.folder / "secrets").mkdir()
    (small.folder / "secrets/key_pepper").write_text("PEPPER")
    variables = {**small.variables, "SECRETS_DIR": str(small.folder / "secrets")}
    plain = backed_up(replace(small, variables=variables, folder=small.folder / "plain"))
    assert "secrets.tar.enc" not in {file.name for file in plain.iterdir()}
    listed = subprocess.run(
        ["tar", "-tzf", plain / "state.tar.gz"], capture_output=True, check=True
    )
    assert b"jwt.secret" not in listed.stdout
    passphrase = small.folder / "passphrase"
    passphrase.write_text("correct horse")
    backup = backed_up(replace(small, variables=variables), "--secrets", passphrase)
    sealed = backup / "secrets.tar.enc"
    assert b"PEPPER" not in sealed.read_bytes()
    opened = ["openssl", "enc", "-d", "-aes-256-cbc", "-pbkdf2", "-iter", "600000", "-in", sealed]
    done = subprocess.run([*opened, "-pass", f"file:{passphrase}"], capture_output=True, check=True)
    assert b"PEPPER" in done.stdout
    assert all(file.stat().st_mode & 0o077 == 0 for file in (backup, *backup.iterdir()))


def test_redis_comes_back_as_an_append_only_file(small: Installation) -> None:
    with redis_server(durable=True) as server:
        cli = ["redis-cli", "-u", server.url]
        subprocess.run([*cli, "SET", "counter", "7"], check=True, capture_output=True)
        subprocess.run([*cli, "EXPIRE", "counter", "1000"], check=True, capture_output=True)
        given = {
            "ATRIUM_BACKUP_REDIS_URL": server.url,
            "ATRIUM_BACKUP_REDIS_DIR": str(server.folder),
        }
        here = replace(small, variables={**small.variables, **given})
        backup = backed_up(here)
        server.kill()
        # Over data it is asked for twice.
        assert run("restore.sh", here.variables, "--redis", backup)[0] == HAS_DATA
        server.wipe()
        status, said = run("restore.sh", here.variables, "--force", "--redis", backup)
        assert status == 0, said
        server.start()
        found = subprocess.run([*cli, "GET", "counter"], capture_output=True, check=True, text=True)
        left = subprocess.run([*cli, "TTL", "counter"], capture_output=True, check=True, text=True)
        assert (found.stdout.strip(), 0 < int(left.stdout) <= 1000) == ("7", True)


STAND_IN = """#!/bin/bash
# Stands for Docker: runs in place what would run in a container, on the test's own data.
set -eu
echo "$*" >>"$STAND_IN_LOG"
[[ $1 == compose ]] && shift
while [[ $1 == --profile ]]; do shift 2; done
verb=$1; shift
folder=$STAND_IN_STATE program=
[[ $verb == exec || $verb == run ]] || exit 0
while [[ $1 == -* ]]; do
  case $1 in
    --volume) [[ $2 != *_tts-data:/data ]] || folder=$STAND_IN_TTS; shift 2 ;;
    --workdir) shift 2 ;;
    --entrypoint) program=$2; shift 2 ;;
    *) shift ;;
  esac
done
service=$1; shift
case $service in
  postgres)
    words=("$1")
    for word in "${@:2}"; do
      [[ ${words[-1]} != --dbname ]] || word=$STAND_IN_DATABASE
      words+=("$word")
    done
    "${words[@]}" ;;
  redis) if [[ $verb == exec ]]; then redis-cli -p "$STAND_IN_REDIS_PORT" --rdb -
         else cd "$STAND_IN_REDIS" && "$program" "$@"; fi ;;
  *) cd "$folder" && "$program" "$@" ;;
esac
"""


def test_compose_is_asked_for_the_same(small: Installation, tmp_path: Path) -> None:
    """The containers' way, with a stand-in for Docker: what it would run is run here."""
    stack = small.stack
    assert stack.redis is not None
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin/docker"
    docker.write_text(STAND_IN)
    docker.chmod(0o755)
    tts, lost = tmp_path / "tts", tmp_path / "redis"
    (tts / "voices").mkdir(parents=True)
    (tts / "voices/1").write_text("a voice")
    (tts / "cache").mkdir()
    lost.mkdir()
    database = small.variables["ATRIUM_BACKUP_DATABASE_URL"]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO tenants VALUES ('second')")
        name, port = connection.info.dbname, connection.info.port
    variables = {
        "PATH": f"{docker.parent}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "STAND_IN_DATABASE": name,
        "STAND_IN_LOG": str(tmp_path / "log"),
        "STAND_IN_STATE": small.variables["ATRIUM_BACKUP_STATE_DIR"],
        "STAND_IN_TTS": str(tts),
        "STAND_IN_REDIS": str(lost),
        "STAND_IN_REDIS_PORT": str(stack.redis.port),
    }
    here = replace(small, variables=variables)
    backup = backed_up(here)
    shutil.rmtree(tts / "voices")
    (tts / "voices").mkdir()
    (small.folder / "state/spool/1").unlink()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DELETE FROM tenants")
    status, said = run("restore.sh", here.variables, "--redis", backup)
    assert status == 0, said
    assert tenants(small) == ["acme", "second"]
    assert (tts / "voices/1").read_text() == "a voice"
    assert (small.folder / "state/spool/1").read_text() == "kept"
    assert (lost / "appendonlydir").is_dir()
    asked = (tmp_path / "log").read_text()
    assert "compose exec -T postgres pg_dump --username atrium --dbname atrium" in asked
    assert "--volume atrium_gateway-data:/data" in asked
    stopped = asked.index("stop gateway text2image img2img img2text tts stt llm")
    assert stopped < asked.index("psql --username atrium")
