"""`atrium price` and `atrium usage`, as operators run them."""

import asyncio
import json
from pathlib import Path

import pytest
from ledger_events import make_event
from typer.testing import CliRunner

from atrium_common.errors import InvalidArgument, NotFound
from atrium_gateway.cli.app import app
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.writer import LedgerWriter

CATALOGUE = "models: [{id: m, service: llm, capabilities: [chat], engine: fake}]"
ALL = ("--start", "1970-01-01T00:00:00Z")


@pytest.fixture
def atrium(tmp_path: Path, monkeypatch):
    """Runs a command in a thread, for it brings an event loop of its own."""
    catalogue = tmp_path / "models.yaml"
    catalogue.write_text(CATALOGUE)
    monkeypatch.setenv("ATRIUM_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("ATRIUM_CATALOGUE", str(catalogue))

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        if result.exception is not None:
            raise result.exception
        return result.stdout.strip()

    return run


async def test_an_operator_sets_a_price_and_sees_it(atrium):
    assert await atrium("price", "list") == "Nothing has a price."
    made = await atrium("price", "set", "m", "request=0.5", "--cost", "request=0.1", "--json")
    assert json.loads(made)["version"] == 1
    far = ("--at", "2099-01-01T00:00:00Z")
    (line,) = json.loads(await atrium("price", "list", *far, "--json"))
    assert line == {"model": "m", "version": 1, "unit": "request", "price": "0.5", "cost": "0.1"}
    await atrium("price", "set", "m", "--catalogue", "--from", "2098-01-01T00:00:00Z")
    assert json.loads(await atrium("price", "list", *far, "--json")) == []
    assert len(json.loads(await atrium("price", "list", "--history", "--json"))) == 2
    with pytest.raises(NotFound, match="no model 'n'"):
        await atrium("price", "set", "n", "request=1")
    for wrong in (["m"], ["m", "request"], ["m", "gold=1"], ["m", "request=1", "--catalogue"]):
        with pytest.raises(InvalidArgument):
            await atrium("price", "set", *wrong)


async def test_events_leave_as_a_file_and_old_ones_go(atrium, tmp_path):
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/gateway.db")
    await upgrade(engine)
    spool = Spool(tmp_path / "spool", segment_bytes=1 << 20, carry=list)
    await LedgerWriter(engine, spool, interval=1)._store([make_event(n) for n in range(3)])
    await engine.dispose()
    await atrium("tenant", "create", "acme")
    lines = [json.loads(line) for line in (await atrium("usage", "export", "acme", *ALL)).split()]
    assert [line["tenant"] for line in lines] == ["acme"] * 3
    file = tmp_path / "acme.csv"
    await atrium("usage", "export", "acme", *ALL, "--format", "csv", "--output", str(file))
    assert len(file.read_text().splitlines()) == 4
    with pytest.raises(FileExistsError):
        await atrium("usage", "export", "acme", *ALL, "--output", str(file))
    assert json.loads(await atrium("usage", "retain", "--days", "35", "--json"))["deleted"] == 3
    assert await atrium("usage", "export", "acme", *ALL) == ""
    assert await atrium("usage", "acme") == await atrium("usage", "show", "acme") == "No usage."
