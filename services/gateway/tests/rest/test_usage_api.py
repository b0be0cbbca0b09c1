"""`/api/usage` over REST: groups, buckets, filters, pages and exports of one tenant's own."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import fields

from atrium_gateway.api.usage_schema import (
    EventsQuery,
    StatementQuery,
    SummaryQuery,
    UsageQuery,
)
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.usage.price_list import PriceVersion
from atrium_gateway.usage.price_store import PriceRepository
from atrium_gateway.usage.records import Units, UsageEvent
from atrium_gateway.usage.reports_calendar import unix_ms
from atrium_gateway.usage.reports_csv import csv_lines, plain_text

NOON = datetime(2026, 3, 28, 12, 30, tzinfo=UTC)
"""In Berlin, the clocks go forward in the night that follows."""
HOUR = timedelta(hours=1)
DOCS = Path(__file__).parents[4] / "docs" / "api.md"
SPAN = {"start_time": "2026-03-28T00:00:00Z", "end_time": "2026-03-31T00:00:00Z"}
SPITEFUL = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "'quoted'",
    '"',
    "a,b",
    "a\r\nb",
    "\tx",
    "",
    "ü€😀",
    " =1",
]


def event(tenant, *, at, user="anna", key=None, model="m", tokens=10, nano=1_000_000, **rest):
    units = Units(tokens)
    fields = {"outcome": "completed", "requests": 1, "price_version": 1} | rest
    return UsageEvent(
        id=str(uuid4()),
        tenant=tenant,
        subject=user,
        capability="chat",
        model=model,
        method="POST /v1/chat/completions",
        request_id="r",
        started_ms=unix_ms(at),
        ended_ms=unix_ms(at) + 250,
        units=units,
        reserved=Units(tokens * 2, 100),
        cost_nano=nano,
        key_id=key,
        **fields,
    )


@pytest.fixture
async def told(rest):
    """Makes a tenant in Berlin, with events, and a client of it."""

    async def make(tenant, events=(), *, zone="Europe/Berlin", roles=()):
        await rest.core.tenants.create_tenant(
            Tenant(
                id=tenant,
                name=tenant,
                blocked=False,
                unlimited=True,
                weight=1.0,
                limits=(),
                created_at=NOON,
                time_zone=zone,
            )
        )
        await rest.core.ledger._writer._store(list(events))
        return rest.client(await rest.key(tenant, roles=roles))

    return make


async def asked(client, path="/api/usage", **query):
    reply = await client.get(path, params={**SPAN, **query})
    assert reply.status_code == 200, reply.text
    return reply.json()


def read(text):
    """The rows of an export, as whoever knows its rules reads them."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [{name: plain_text(cell) for name, cell in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/usage", UsageQuery),
        ("/api/usage/events", EventsQuery),
        ("/api/usage/summary", SummaryQuery),
        ("/api/usage/statement", StatementQuery),
    ],
)
def test_docs_list_the_parameters(path, query):
    section = DOCS.read_text().split(f"### `GET {path}`\n", 1)[1].split("\n### ", 1)[0]
    (line,) = re.findall(r"^- \*\*Honoured:\*\* (.*)$", section, re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", line)) == {each.encode_name for each in fields(query)}


async def test_groups_and_buckets_are_exact_within_the_period(told):
    acme = "usage-exact"
    events = [
        event(acme, at=NOON - timedelta(milliseconds=1), user="anna", key="k1"),
        event(acme, at=NOON, user="anna", key="k1"),
        event(acme, at=NOON + HOUR, user="bert", model="n", outcome="cancelled"),
        event(acme, at=NOON + 11 * HOUR, outcome="refunded", requests=0, nano=0, tokens=0),
        event(acme, at=NOON + 20 * HOUR, user="bert"),
    ]
    async with await told(acme, events) as client:
        from_noon = await asked(client, start_time="2026-03-28T12:30:00Z")
        assert (from_noon["totals"]["requests"], from_noon["totals"]["refunded"]) == (3, 1)
        assert from_noon["totals"]["cost"] == "0.003"
        assert from_noon["groups"] == []
        users = await asked(client, group_by="user,status")
        assert [
            (group["user"], group["status"], group["totals"]["requests"])
            for group in users["groups"]
        ] == [
            ("anna", "completed", 2),
            ("anna", "refunded", 0),
            ("bert", "cancelled", 1),
            ("bert", "completed", 1),
        ]
        keys = await asked(client, group_by="key")
        assert [(g["key"], g["totals"]["requests"]) for g in keys["groups"]] == [("", 2), ("k1", 2)]
        days = await asked(client, bucket_width="1d")
        assert days["time_zone"] == "Europe/Berlin"
        assert [(g["start_time"], g["totals"]["requests"]) for g in days["groups"]] == [
            ("2026-03-27T23:00:00Z", 3),
            ("2026-03-28T23:00:00Z", 1),
        ]
        assert await asked(client, group_by="day") == days
        minutes = await asked(client, bucket_width="1m", end_time="2026-03-28T13:00:00Z")
        assert [g["start_time"] for g in minutes["groups"]] == [
            "2026-03-28T12:29:00Z",
            "2026-03-28T12:30:00Z",
        ]
        hours = await asked(client, group_by="hour,model")
        assert [(g["start_time"][11:13], g["model"]) for g in hours["groups"]] == [
            ("12", "m"),
            ("13", "n"),
            ("23", "m"),
            ("08", "m"),
        ]


async def test_filters_narrow_sums_and_events_alike(told):
    acme = "usage-filters"
    events = [
        event(acme, at=NOON + HOUR * number, user=user, key=key, model=model)
        for number, (user, key, model) in enumerate(
            [("anna", "k1", "m"), ("a,b", None, "m"), ("a,b", "k2", "n"), ("bert", None, "o")]
        )
    ]
    async with await told(acme, events) as client:
        for query, expected in (
            ({"user": "a,b"}, 2),
            ({"user": ["anna", "bert"]}, 2),
            ({"model": ["m", "n"], "key": ["k1", "k2"]}, 2),
            ({"key": ""}, 2),
            ({"status": "failed"}, 0),
            ({"capability": "chat", "model": "o"}, 1),
        ):
            summed = await asked(client, **query)
            assert summed["totals"]["requests"] == expected, query
            listed = await asked(client, "/api/usage/events", **query)
            assert len(listed["events"]) == expected, query


async def test_pages_go_on_where_the_last_one_ended(told):
    acme = "usage-pages"
    events = [event(acme, at=NOON + HOUR * n, user=f"u{n % 3}") for n in range(10)]
    async with await told(acme, events) as client:
        everything = await asked(client, bucket_width="1h", group_by="user")
        query, seen = {"bucket_width": "1h", "group_by": "user", "limit": 4}, []
        page = await asked(client, **query)
        while page["next_page"]:
            seen += page["groups"]
            assert page["totals"] == everything["totals"]
            name = page["next_page"]
            page = await asked(client, **query, page=name)
        assert seen + page["groups"] == everything["groups"]
        assert everything["next_page"] is None
        for wrong in ({**query, "group_by": "model"}, {**query, "user": "u1"}):
            reply = await client.get("/api/usage", params={**SPAN, **wrong, "page": name})
            assert (reply.status_code, reply.json()["field"]) == (400, "page")
        for nonsense in ("x", "%%%", "", "bnVsbA"):
            reply = await client.get("/api/usage", params={**SPAN, **query, "page": nonsense})
            assert (reply.status_code, reply.json()["field"]) == (400, "page")


async def test_a_page_keeps_the_period_that_the_first_one_had(told):
    acme = "usage-now"
    now = datetime.now(UTC)
    events = [event(acme, at=now - timedelta(minutes=n + 1), user=f"u{n}") for n in range(3)]
    async with await told(acme, events) as client:
        query = {"group_by": "user", "limit": 2}
        first = (await client.get("/api/usage", params=query)).json()
        query["page"] = first["next_page"]
        second = (await client.get("/api/usage", params=query)).json()
        assert (second["start_time"], second["end_time"]) == (
            first["start_time"],
            first["end_time"],
        )
        assert len(first["groups"]) + len(second["groups"]) == 3


async def test_an_export_reads_back_as_what_was_asked(told):
    acme = "usage-csv"
    events = [event(acme, at=NOON + HOUR * n, user=user) for n, user in enumerate(SPITEFUL)]
    async with await told(acme, events) as client:
        answer = await asked(client, bucket_width="1h", group_by="user,model")
        query = {**SPAN, "bucket_width": "1h", "group_by": "user,model", "format": "csv"}
        reply = await client.get("/api/usage", params=query)
        assert reply.headers["content-type"].startswith("text/csv; charset=utf-8")
        rows = read(reply.text)
        assert [(row["user"], row["model"]) for row in rows] == [
            (group["user"], group["model"]) for group in answer["groups"]
        ]
        assert {row["user"] for row in rows} == set(SPITEFUL)
        for row, group in zip(rows, answer["groups"], strict=True):
            assert datetime.fromisoformat(row["start_time"]) == datetime.fromisoformat(
                group["start_time"]
            )
            for name, value in group["totals"].items():
                assert Decimal(row[name]) == Decimal(str(value)), name
        assert all(line.endswith("\r\n") for line in reply.text.splitlines(keepends=True)[-1:])
        page = await client.get("/api/usage", params={**query, "limit": 3})
        assert len(read(page.text)) == 3
        following = page.headers["x-atrium-next-page"]
        rest_of_it = await client.get("/api/usage", params={**query, "page": following})
        assert read(page.text) + read(rest_of_it.text) == rows
        exported = read((await client.get("/api/usage/events", params=query_of(query))).text)
        assert [row["user"] for row in exported] == SPITEFUL[::-1]
        whole = read((await client.get("/api/usage", params={**SPAN, "format": "csv"})).text)
        assert [row["requests"] for row in whole] == [str(len(SPITEFUL))]


def query_of(query):
    return {name: value for name, value in query.items() if name in (*SPAN, "format")}


@pytest.mark.parametrize("text", [*SPITEFUL, "\ufeff=1", "\u202e@SUM(A1)", "\x0b+1", "\u00a0 -1"])
def test_a_cell_is_no_formula_and_reads_back(text):
    line = csv_lines([[text, 1, None, True, Decimal("-1.5")]])
    ((cell, *others),) = csv.reader(io.StringIO(line.decode(), newline=""))
    assert not cell.strip("\ufeff\u202e \t\r\n\x0b").startswith(("=", "+", "-", "@"))
    assert plain_text(cell) == text
    assert others == ["1", "", "true", "-1.5"]


async def test_large_exports_come_in_pieces(told, monkeypatch):
    acme = "usage-large"
    monkeypatch.setattr("atrium_gateway.usage.reports._PAGE", 7)
    monkeypatch.setattr("atrium_gateway.api.usage_events.MAX_EVENTS", 7)
    events = [event(acme, at=NOON + timedelta(minutes=n), user=f"u{n}") for n in range(30)]
    async with await told(acme, events) as client:
        for path, query in (("/api/usage", {"group_by": "user"}), ("/api/usage/events", {})):
            reply = await client.get(path, params={**SPAN, **query, "format": "csv"})
            assert sorted(row["user"] for row in read(reply.text)) == sorted(
                f"u{n}" for n in range(30)
            )


async def test_a_period_that_can_not_be_is_refused_by_name(told):
    async with await told("usage-refused") as client:
        for query, field in (
            ({"end_time": "2026-03-27T00:00:00Z"}, "end_time"),
            ({"bucket_width": "1m"}, "end_time"),
            ({"bucket_width": "1d", "start_time": "1980-01-01T00:00:00Z"}, "end_time"),
            ({"bucket_width": "2h"}, "bucket_width"),
            ({"start_time": "2026-03-28"}, "start_time"),
            ({"group_by": "colour"}, "group_by[0]"),
            ({"limit": "0"}, "limit"),
            ({"format": "xml"}, "format"),
            ({"colour": "red"}, "colour"),
            ({"user": "a\0"}, "user[0]"),
            ({"group_by": "hour,day"}, "bucket_width"),
            ({"group_by": "day", "bucket_width": "1h"}, "bucket_width"),
            ({"start_time": [SPAN["start_time"]] * 2}, "start_time"),
        ):
            for form in ("json", "csv"):
                reply = await client.get("/api/usage", params={**SPAN, "format": form, **query})
                assert (reply.status_code, reply.json()["field"]) == (400, field), query


async def test_an_event_tells_what_was_reserved_charged_and_why(rest):
    key = await rest.key("usage-explained", unlimited=True)
    async with rest.client(key) as client:
        await client.post("/api/text-to-speech", json={"text": "Hello there."})
        await rest.settled("usage-explained", 1)
        (spoken,) = (await client.get("/api/usage/events")).json()["events"]
    assert spoken["unit_prices"] == {"million_characters": "15"}
    (charge,) = spoken["charges"]
    assert (charge["unit"], charge["count"]) == (
        "million_characters",
        spoken["totals"]["characters"],
    )
    assert Decimal(charge["amount"]) == Decimal(spoken["totals"]["cost"])
    assert spoken["reserved"]["characters"] >= spoken["totals"]["characters"]
    assert spoken["explanation"] == "The work was completed: what it consumed is charged."


@pytest.mark.parametrize(
    ("outcome", "requests", "estimated", "sentence"),
    [
        ("cancelled", 1, False, "until then is charged"),
        ("failed", 1, True, "an upper estimate is charged"),
        ("refunded", 0, False, "nothing is charged"),
        ("expired", 1, True, "what was reserved is charged"),
        ("orphaned", 1, True, "The gateway stopped"),
        ("completed", 0, False, "another event counts the request itself"),
    ],
)
async def test_every_outcome_is_explained(told, outcome, requests, estimated, sentence):
    acme = f"usage-{outcome}-{requests}"
    made = event(acme, at=NOON, outcome=outcome, requests=requests, estimated=estimated, reason="X")
    async with await told(acme, [made]) as client:
        (found,) = (await asked(client, "/api/usage/events"))["events"]
    assert sentence in found["explanation"]
    assert "Reason: X." in found["explanation"]
    assert found["reserved"] == {"input_tokens": 20, "output_tokens": 100}


async def test_a_statement_adds_up_and_follows_the_changes_of_prices(rest, told):
    acme, model = "usage-statement", "old-model"
    prices = PriceRepository(rest.core.reports._engine)
    change = datetime(2026, 3, 28, 12, 34, 56, 789_000, tzinfo=UTC)
    for since, price in ((datetime(2026, 1, 1, tzinfo=UTC), "2"), (change, "3.5")):
        rates = {"million_input_tokens": Decimal(price), "request": Decimal("0.25")}
        assert await prices._added(
            PriceVersion(await prices.newest() + 1, since, model, {model: rates})
        )
    events = [
        event(
            acme, at=change - timedelta(milliseconds=1), model=model, nano=252_000_000, tokens=1000
        ),
        event(acme, at=change, model=model, nano=253_500_001, tokens=1000),
        event(acme, at=datetime(2026, 3, 31, 21, 59, tzinfo=UTC), model="free", nano=0),
        event(acme, at=datetime(2026, 3, 31, 22, 1, tzinfo=UTC), model="april", nano=9),
    ]
    async with await told(acme, events) as client:
        path = "/api/usage/statement"
        statement = (await client.get(path, params={"month": "2026-03"})).json()
        exported = (await client.get(path, params={"month": "2026-03", "format": "csv"})).text
        april = (await client.get(path, params={"month": "2026-04"})).json()
        empty = (await client.get(path, params={"month": "2030-01"})).json()
        for wrong in ("2026", "2026-13", "26-01", "0001-01"):
            reply = await client.get(path, params={"month": wrong})
            assert (reply.status_code, reply.json()["field"]) == (400, "month")
        running = (await client.get(path)).json()
    assert (statement["start_time"], statement["end_time"], statement["complete"]) == (
        "2026-02-28T23:00:00Z",
        "2026-03-31T22:00:00Z",
        True,
    )
    assert [(line["model"], line["amount"]) for line in statement["lines"]] == [
        ("free", "0"),
        (model, "0.252"),
        (model, "0.253500001"),
    ]
    assert statement["amount"] == "0.505500001"
    before, after = statement["lines"][1:]
    assert before["end_time"] == after["start_time"] == "2026-03-28T12:34:56.789000Z"
    assert (before["unit_prices"]["million_input_tokens"], before["rounding"]) == (
        "2",
        "0",
    )
    assert after["unit_prices"]["million_input_tokens"] == "3.5"
    assert after["rounding"] == "0.000000001"
    rows = read(exported)
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(statement["amount"])
    assert [row["unit"] for row in rows if row["model"] == "free"] == ["request"]
    assert april["amount"] == "0.000000009"
    assert (empty["lines"], empty["complete"]) == ([], False)
    assert (running["lines"], running["complete"]) == ([], False)
