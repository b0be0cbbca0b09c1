"""Which limits apply: the policy picks what a plain reading of the tree says, and no other."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from atrium_gateway.auth.principal import Principal
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.quota.policy import LimitPolicy
from atrium_gateway.tenants.domain import Tenant

START = datetime(2026, 1, 1, tzinfo=UTC)
ACME = Tenant(
    id="acme",
    name="acme",
    blocked=False,
    unlimited=False,
    weight=1.0,
    limits=(),
    created_at=START,
)
ANN = Principal(tenant="acme", subject="ann")
POLICY = LimitPolicy(default_amount=100, default_window=Window.HOUR)

SELECTORS = ("*", "chat", "speech", "model:m", "model:n")
SUBJECTS = ("key:k1", "key:k2", "user:ann", "user:bob")
kinds = st.tuples(
    st.sampled_from(SELECTORS),
    st.sampled_from([Unit.REQUESTS, Unit.TOKENS, Unit.COST]),
    st.sampled_from([Window.MINUTE, Window.HOUR, Window.MONTH]),
)


def trees(amounts: st.SearchStrategy[int | None]) -> st.SearchStrategy[tuple[Limit, ...]]:
    return st.dictionaries(kinds, amounts, max_size=12).map(
        lambda found: tuple(Limit(*kind, amount) for kind, amount in found.items())
    )


whole = st.integers(0, 1000)
tenants = st.builds(
    replace,
    st.just(ACME),
    plan=st.sampled_from([None, "free"]),
    plan_limits=trees(whole),
    limits=trees(whole | st.none()),
    scoped=st.dictionaries(st.sampled_from(SUBJECTS), trees(whole), max_size=4),
    unlimited=st.booleans(),
    time_zone=st.sampled_from(["UTC", "Europe/Berlin"]),
)
principals = st.builds(
    Principal,
    tenant=st.just("acme"),
    subject=st.sampled_from(["ann", "bob", "eve"]),
    key_id=st.sampled_from([None, "k1", "k2", "k3"]),
)


def naive(tenant: Tenant, principal: Principal, capability: str, model: str) -> set[tuple]:
    """The tree read aloud: one tuple for each limit that must hold."""
    found = set()
    for selector in ("*", capability, f"model:{model}"):
        for unit in Unit:
            for window in Window:
                kind = (selector, unit, window)
                own = {(x.selector, x.unit, x.window): x.amount for x in tenant.limits}
                plan = {(x.selector, x.unit, x.window): x.amount for x in tenant.plan_limits}
                amount = own.get(kind, plan.get(kind) if tenant.plan else None)
                is_default = kind == (capability, Unit.REQUESTS, Window.HOUR)
                if not tenant.plan and is_default and kind not in own:
                    overall = ("*", Unit.REQUESTS, Window.HOUR)
                    amount = None if overall in own else 100
                if amount is not None and not tenant.unlimited:
                    found.add(("tenant", "", *kind, amount))
                for level, who in (("key", principal.key_id), ("user", principal.subject)):
                    for limit in tenant.scoped.get(f"{level}:{who}", ()):
                        if (limit.selector, limit.unit, limit.window) == kind:
                            found.add((level, who, *kind, limit.amount))
    return found


@given(tenants, principals, st.sampled_from(["chat", "speech"]), st.sampled_from(["m", "n"]))
def test_the_policy_is_a_plain_reading_of_the_tree(tenant, principal, capability, model):
    expected = naive(tenant, principal, capability, model)
    for _ in range(2):  # what is kept is what was found
        meters = POLICY.meters(tenant, principal, capability, model)
        assert len(meters) == len(expected)
        assert len({meter.key for meter in meters}) == len(meters)
        for meter in meters:
            level, rest = meter.name.split(":", 1)
            selector, unit, window = rest.rsplit(":", 2)
            who = meter.key_id or meter.subject
            amount = meter.limit // meter.scale
            assert (level, who, selector, Unit(unit), Window(window), amount) in expected
            assert meter.model == (model if selector.startswith("model:") else "")
            assert meter.capability == (selector if ":" not in selector else "*")
            assert meter.time_zone == (tenant.time_zone if window == "month" else "UTC")
            assert meter.key.startswith("acme:")


def test_a_key_and_a_user_count_for_themselves():
    limit = Limit("chat", Unit.REQUESTS, Window.HOUR, 5)
    tenant = replace(ACME, limits=(limit,), scoped={"key:k": (limit,), "user:ann": (limit,)})
    meters = POLICY.meters(tenant, replace(ANN, key_id="k"), "chat", "m")
    assert [meter.scope for meter in meters] == [
        "tenant:acme capability:chat",
        "key:k capability:chat",
        "user:ann capability:chat",
    ]
    assert len({meter.key for meter in meters}) == 3


def test_a_users_name_stays_one_word_of_its_counters_key():
    hostile = "a:b\n{c} *"
    limit = Limit("*", Unit.REQUESTS, Window.HOUR, 5)
    tenant = replace(ACME, unlimited=True, scoped={f"user:{hostile}": (limit,)})
    (meter,) = POLICY.meters(tenant, replace(ANN, subject=hostile), "chat", "m")
    assert meter.key == "acme:user:a%3Ab%0A%7Bc%7D%20%2A:*:requests:hour:UTC"
    assert meter.subject == hostile


def test_a_changed_record_holds_at_once():
    one, two = (replace(ACME, limits=(Limit("chat", Unit.TOKENS, Window.DAY, n),)) for n in (1, 2))
    limits = [
        [m.limit for m in POLICY.meters(tenant, ANN, "chat", "m") if m.unit is Unit.TOKENS]
        for tenant in (one, two, one)
    ]
    assert limits == [[1], [2], [1]]


def test_another_time_zone_counts_days_anew_and_hours_on():
    limits = tuple(Limit("chat", Unit.TOKENS, window, 5) for window in (Window.HOUR, Window.DAY))
    here = replace(ACME, unlimited=False, plan="p", limits=limits)
    there = replace(here, time_zone="Asia/Tokyo")
    keys = [[m.key for m in POLICY.meters(t, ANN, "chat", "m")] for t in (here, there)]
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]
