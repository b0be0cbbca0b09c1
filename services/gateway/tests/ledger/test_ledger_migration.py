"""Roll-ups go up to all dimensions and down again, on both databases, and keep their sums."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

import atrium_gateway
from atrium_gateway.database import open_engine

_COUNTS = (
    "requests, input_tokens, output_tokens, cached_input_tokens, characters, input_audio_ms, "
    "output_audio_ms, images, millimegapixel_steps, pages, inference_ms, cost_nano"
)
_EVENT = f"""
INSERT INTO usage_events (id, tenant, subject, key_id, capability, model, method, request_id,
  started_ms, ended_ms, outcome, reason, estimated, engine, model_digest, queue_ms,
  price_version, reserved, {_COUNTS})
VALUES (:id, 't', 's', :key_id, 'chat', 'm', 'x', 'r', :started, 0, :outcome, '', FALSE, '', '',
  0, 0, '{{}}', :requests, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 7)
"""  # noqa: S608 - every name in it is written above
_HOUR = f"""
INSERT INTO usage_hourly (tenant, hour, capability, model, refunded, {_COUNTS})
VALUES ('t', :hour, 'chat', 'm', :refunded, :requests, 0, 0, 0, 0, 0, 0, 0, 0, 0, :inference, 7)
"""  # noqa: S608 - every name in it is written above
_OLD = "SELECT hour, refunded, requests, inference_ms, cost_nano FROM usage_hourly ORDER BY hour"
_DAYS = """
SELECT day, SUM(events), SUM(refunded), SUM(requests), SUM(inference_ms), SUM(cost_nano)
FROM usage_daily GROUP BY day ORDER BY day
"""
_NAMELESS = """
SELECT hour, outcome, events, requests, inference_ms FROM usage_nameless ORDER BY hour, outcome
"""
_NEW = """
SELECT hour, key_id, subject, outcome, events, refunded, requests, inference_ms, cost_nano,
  provider_cost_nano FROM usage_hourly ORDER BY hour, key_id, outcome
"""


def _move(connection: Connection, revision: str, *, down: bool = False) -> None:
    config = Config()
    folder = Path(atrium_gateway.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    (command.downgrade if down else command.upgrade)(config, revision)


async def _fill(connection: AsyncConnection) -> None:
    for number, (started, key_id, outcome) in enumerate(
        [
            (0, None, "completed"),
            (1, "k", "refunded"),
            (2, "k", "completed"),
            (3_600_000, None, "x"),
        ]
    ):
        row = {"id": str(number), "started": started, "key_id": key_id, "outcome": outcome}
        await connection.execute(text(_EVENT), {**row, "requests": int(outcome != "refunded")})
    for hour, refunded, requests, inference in ((0, 1, 2, 15), (1, 0, 1, 5), (9, 1, 2, 70)):
        row = {"hour": hour, "refunded": refunded, "requests": requests, "inference": inference}
        await connection.execute(text(_HOUR), row)
    await connection.commit()


async def test_sums_go_up_and_down_and_up_again(empty_url):
    engine = open_engine(empty_url)
    async with engine.connect() as connection:

        async def sums(query: str) -> list[tuple[object, ...]]:
            return [tuple(row) for row in await connection.execute(text(query))]

        await connection.run_sync(_move, "0003")
        await _fill(connection)
        old = await sums(_OLD)
        await connection.run_sync(_move, "0004")
        new = await sums(_NEW)
        assert new == [
            (0, "", "s", "completed", 1, 0, 1, 5, 7, 0),
            (0, "k", "s", "completed", 1, 0, 1, 5, 7, 0),
            (0, "k", "s", "refunded", 1, 1, 0, 5, 7, 0),
            (1, "", "s", "x", 1, 0, 1, 5, 7, 0),
            # No event tells of this hour any more: its sums are all there is.
            (9, "", "", "completed", 3, 1, 2, 70, 7, 0),
        ]
        await connection.run_sync(lambda each: _move(each, "0003", down=True))
        back = await sums(_OLD)
        assert [row[:4] for row in back] == [row[:4] for row in old]
        await connection.run_sync(_move, "0004")
        assert await sums(_NEW) == new
        assert await sums(_DAYS) == [(0, 7, 2, 5, 90, 35)]
        await connection.run_sync(_move, "0009")
        assert await sums(_NAMELESS) == [
            (0, "completed", 2, 2, 10),
            (0, "refunded", 1, 0, 5),
            (1, "x", 1, 1, 5),
            (9, "completed", 3, 2, 70),
        ]
        await connection.run_sync(lambda each: _move(each, "0008", down=True))
    await engine.dispose()
