"""Killed between any two lines: what was kept is there whole, what was not runs anew."""

import asyncio
import sys
from pathlib import Path

import pytest
from answers import keep, read, totals

from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.idempotency.domain import Attempt, Bounds, key_digest
from atrium_gateway.idempotency.store import AnswerStore

VICTIM = Path(__file__).with_name("idempotency_victim.py")
ROUNDS = 5


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_no_answer_is_lost_or_torn_and_no_key_stays(tmp_path, postgres, database):
    url = f"sqlite+aiosqlite:///{tmp_path}/x.db"
    if database == "postgresql":
        url = postgres.new_database("crash")
    engine = open_engine(url)
    await upgrade(engine)
    await engine.dispose()
    log = tmp_path / "promises.log"
    command = (sys.executable, str(VICTIM), url, str(ROUNDS), "5", str(log))
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
    said = [line.split() for line in log.read_text().splitlines()]
    kept = {words[1]: words[2:] for words in said if words[0] == "kept"}
    assert len(kept) > 5
    # An answer that is kept ends all running of its key.
    last = {words[1]: words for words in said if words[0] in ("ran", "kept")}
    assert all(last[key][0] == "kept" for key in kept)
    now = 1_790_000_000.0 + 60 * (ROUNDS + 1)
    store = AnswerStore(engine, Bounds(), clock=lambda: now)
    await totals(engine, "acme")
    for number in range(40):
        key = str(number)
        again = Attempt(
            tenant="acme",
            digest=key_digest("POST", "/", key.encode()),
            fingerprint=key.encode().ljust(32),
            id=f"last-{key}",
            request_id="r",
        )
        answer = await store.claim(again)
        if answer is None:
            assert key not in kept
            assert await keep(store, again)
        else:
            # Killed between the commit and its word: then it is not in the log.
            body = await read(store, answer)
            assert body.rstrip(b".").decode() == answer.attempt
            if key in kept:
                assert [answer.attempt, str(len(body))] == kept[key]
    count, _ = await totals(engine, "acme")
    assert count == 40
    await store.close()
    await engine.dispose()
