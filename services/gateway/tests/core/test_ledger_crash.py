"""The gateway is killed between any two lines: nothing settled is lost, nothing is doubled."""

import asyncio
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from atrium_gateway.core import open_core
from atrium_gateway.settings import GatewaySettings

VICTIM = Path(__file__).with_name("crash_victim.py")
MOST_RUNS = 6


def promises(folder: Path) -> dict[str, list[list[str]]]:
    kinds: dict[str, list[list[str]]] = {k: [] for k in ("admitted", "settling", "settled")}
    kinds["refunded"] = []
    for line in (folder / "promises.log").read_text().splitlines():
        kind, *rest = line.split()
        kinds[kind].append(rest)
    return kinds


async def all_events(core):
    now, found, after = datetime.now(UTC), [], None
    while True:
        page = await core.reports.events(
            "acme",
            start=now - timedelta(hours=2),
            end=now + timedelta(hours=1),
            limit=1000,
            after=after,
        )
        found += page
        if len(page) < 1000:
            return found
        after = page[-1].id


async def read(settings, catalogue):
    """All events, and their sums, once the last victim's leavings are closed."""
    async with open_core(settings, catalogue=catalogue) as core:
        now = datetime.now(UTC)
        sums = await core.reports.totals(
            "acme", start=now - timedelta(hours=2), end=now + timedelta(hours=1)
        )
        return await all_events(core), sums


@pytest.mark.parametrize(("database", "rounds"), [("sqlite", 12), ("postgresql", 9)])
async def test_what_was_settled_is_in_the_ledger_once_and_the_sums_agree(
    tmp_path, catalogue, request, monkeypatch, database, rounds
):
    if database == "postgresql":
        url = request.getfixturevalue("real_postgres").new_database("crashes")
        monkeypatch.setenv("ATRIUM_GATEWAY_DATABASE_URL", url)
    # Where a kill falls is chance: on a busy machine it may take more rounds until one leaves work
    # that was granted and not settled.
    for seed in range(1, MOST_RUNS + 1):
        command = (sys.executable, str(VICTIM), str(tmp_path), str(rounds), str(seed))
        process = await asyncio.create_subprocess_exec(*command)
        assert await process.wait() == 0
        said = promises(tmp_path)
        events, sums = await read(GatewaySettings(state_dir=tmp_path), catalogue)
        if len(said["settled"]) > 30 and any(event.outcome == "orphaned" for event in events):
            break
    by_id = {event.id: event for event in events}
    assert len(said["settled"]) > 30
    assert Counter(event.id for event in events).most_common(1)[0][1] == 1
    for key, amount in said["settled"]:
        assert by_id[key].outcome == "completed"
        assert by_id[key].totals.output_tokens == int(amount)
    for (key,) in said["refunded"]:
        assert by_id[key].outcome == "refunded"
        assert by_id[key].totals.requests == 0
    settling = dict(said["settling"])
    requests = defaultdict(list)
    for event in events:
        requests[event.request_id].append(event)
        if event.outcome == "completed" and event.model == "m":
            assert event.totals.output_tokens == int(settling[event.id])
        elif event.outcome == "orphaned":
            assert event.estimated
            assert event.totals.output_tokens == 1000
    assert any(event.outcome == "orphaned" for event in events)
    for lines in requests.values():
        # All events of a settlement or none: pages tell how many there were to be.
        assert sum(line.totals.requests + line.totals.refunded for line in lines) == 1
        if lines[0].outcome == "completed":
            assert len(lines) == sum(line.totals.pages for line in lines)
            assert len({line.model for line in lines}) == len(lines)
        else:
            assert len(lines) == 1
    assert {len(lines) for lines in requests.values()} == {1, 2, 3}
    assert sums.requests == sum(event.totals.requests for event in events)
    assert sums.refunded == sum(event.totals.refunded for event in events)
    assert sums.output_tokens == sum(event.totals.output_tokens for event in events)
    # What was written is not kept twice: the spool has shrunk to its last file.
    assert len(list((tmp_path / "spool").iterdir())) <= 1
