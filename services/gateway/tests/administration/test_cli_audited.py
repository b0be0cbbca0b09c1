"""Every command that changes something leaves an entry in the audit log, by name of the account."""

import json

import pytest
import typer.core
import typer.main

from atrium_gateway.cli.app import app
from atrium_gateway.cli.session import operator

_CATALOGUE = "models: [{id: m, service: llm, capabilities: [chat], engine: fake}]"
CHANGES = [
    ("plan set", "team", "plan.set"),
    ("plan limit", "team --amount 5", "limit.set"),
    ("plan limit", "team --amount default", "limit.remove"),
    ("tenant create", "acme", "tenant.create"),
    ("tenant plan", "acme team", "tenant.change"),
    ("tenant plan", "acme none", "tenant.change"),
    ("plan remove", "team", "plan.remove"),
    ("tenant time-zone", "acme Asia/Tokyo", "tenant.change"),
    ("tenant fallback", "acme refuse", "tenant.change"),
    ("tenant block", "acme", "tenant.block"),
    ("tenant unblock", "acme", "tenant.unblock"),
    ("tenant limit", "acme --amount 5", "limit.set"),
    ("tenant limit", "acme --amount 5 --user ada", "limit.set"),
    ("tenant limit", "acme --amount default", "limit.remove"),
    ("key create", "acme --json", "key.create"),
    ("key rotate", "{key}", "key.rotate"),
    ("key revoke", "{key}", "key.revoke"),
    ("price set", "m request=0.5", "prices.set"),
    ("price set", "m --catalogue", "prices.set"),
    ("usage retain", "--days 40", "usage.retain"),
    ("tenant delete", "acme --yes", "tenant.deleted"),
]
"""Commands in an order in which each finds what it needs, and what is noted of them."""
READING = {
    "audit",
    "db upgrade",
    "key list",
    "plan list",
    "plan show",
    "price list",
    "tenant export",
    "tenant list",
    "tenant show",
    "token create",
    "usage export",
    "usage late",
    "usage show",
    "usage statement",
}
"""What changes no record; the schema and a token, which is kept nowhere, are none."""


def commands(command, name: str = "") -> set[str]:
    """Names of a command's commands, or its own."""
    if not isinstance(command, typer.core.TyperGroup):
        return {name}
    return {
        found
        for part, child in command.commands.items()
        for found in commands(child, f"{name} {part}".strip())
    }


def test_every_command_is_known_to_read_or_to_change():
    named = commands(typer.main.get_command(app))
    models = {name for name in named if name.startswith("models ")}  # files, no records
    assert named - models == READING | {name for name, _, _ in CHANGES}


@pytest.fixture
def atrium(tmp_path, monkeypatch, run_atrium):
    (tmp_path / "models.yaml").write_text(_CATALOGUE)
    monkeypatch.setenv("ATRIUM_CATALOGUE", str(tmp_path / "models.yaml"))
    monkeypatch.setenv("ATRIUM_GATEWAY_CATALOGUE", str(tmp_path / "models.yaml"))
    return run_atrium


async def test_every_change_is_in_the_log_under_the_account(atrium):
    key, seen = "", 0
    for name, arguments, action in CHANGES:
        said = await atrium(*name.split(), *arguments.format(key=key).split())
        if name == "key create":
            key = json.loads(said)["id"]
        entries = json.loads(await atrium("audit", "--json", "--limit", "100"))
        assert len(entries) > seen, name
        assert entries[0]["action"] == action, name
        assert {entry["actor"] for entry in entries} == {operator().subject}
        seen = len(entries)


async def test_what_changes_nothing_leaves_no_entry(atrium):
    await atrium("tenant", "create", "acme")
    await atrium("usage", "retain", "--days", "40", "--dry-run")
    for name in ("plan list", "price list", "key list acme", "tenant show acme", "usage late"):
        await atrium(*name.split())
    assert len(json.loads(await atrium("audit", "--json"))) == 1
