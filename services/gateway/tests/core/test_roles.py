"""What roles grant, what scopes cover, and whom a credential reaches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_common.domain import Capability
from atrium_common.errors import PermissionDenied
from atrium_gateway.auth.principal import Principal
from atrium_gateway.auth.roles import GRANTS, Action, Role, covered, granted, may_give

ROLES = st.frozensets(st.sampled_from([*Role, "guest", "root", ""]))
ACTIONS = st.sampled_from([*Action, *Capability])
SCOPES = st.frozensets(
    st.sampled_from(["*", "usage", "keys", "tokens:write", *Action, *Capability])
)


def who(*roles: str, scopes: frozenset[str] = frozenset({"*"})) -> Principal:
    return Principal(tenant="acme", subject="ann", roles=frozenset(roles), scopes=scopes)


def test_the_table_says_who_may_do_what():
    def may(role: str) -> set[str]:
        return {action for action in Action if granted({role} - {""}, action)}

    see = {"usage:read", "limits:read", "tenant:read", "prices:read"}
    assert may("viewer") == see
    assert may("") == see | {"tokens:write"}
    assert may("developer") == may("") | {"keys:read"}
    assert may("admin") == may("developer") | {
        "keys:write",
        "limits:write",
        "tenant:write",
        "audit:read",
    }
    assert may("owner") == may("admin") | {"tenant:delete"}
    assert may("operator") == set(Action)


def test_all_but_a_viewer_work_with_models():
    for role in ("", "developer", "admin", "owner", "operator", "guest"):
        assert who(*filter(None, [role])).may(Capability.CHAT), role
    assert not who("viewer").may(Capability.CHAT)
    assert who("viewer", "developer").may(Capability.CHAT)


def test_a_scope_covers_an_action_by_name_and_by_area():
    scopes = frozenset({"chat", "usage", "keys:read"})
    assert covered(scopes, "chat")
    assert covered(scopes, "usage:read")
    assert covered(scopes, "keys:read")
    assert not covered(scopes, "keys:write")
    assert not covered(scopes, "ocr")
    assert not covered(frozenset({"text"}), "text-to-image")


def test_a_refusal_says_what_is_missing():
    for principal, tenant, reason in (
        (who("admin"), "globex", "OTHER_TENANT"),
        (who("admin", scopes=frozenset({"chat"})), "acme", "SCOPE_MISSING"),
        (who("viewer"), "acme", "ROLE_MISSING"),
        (who(), None, "ROLE_MISSING"),
    ):
        with pytest.raises(PermissionDenied) as caught:
            principal.demand(Action.KEYS_WRITE, tenant=tenant)
        assert caught.value.reason == reason
    who("admin").demand(Action.KEYS_WRITE, tenant="acme")
    who("operator").demand(Action.KEYS_WRITE, tenant="globex")


@given(ROLES, SCOPES, ACTIONS)
def test_nobody_but_an_operator_reaches_another_tenant(roles, scopes, action):
    principal = Principal(tenant="acme", subject="ann", roles=roles, scopes=scopes)
    assert principal.may(action, tenant="acme") is principal.may(action)
    if "operator" not in roles:
        assert not principal.may(action, tenant="globex")


@given(ROLES, SCOPES, SCOPES, ACTIONS)
def test_fewer_scopes_never_allow_more(roles, scopes, more, action):
    narrow = Principal(tenant="acme", subject="ann", roles=roles, scopes=scopes)
    wide = Principal(tenant="acme", subject="ann", roles=roles, scopes=scopes | more)
    assert wide.may(action) or not narrow.may(action)


@given(ROLES, ROLES, ACTIONS)
def test_nobody_gives_a_role_that_grants_more_than_their_own(roles, asked, action):
    if granted(roles, Action.KEYS_WRITE) and may_give(roles, asked) and asked:
        assert granted(roles, action) or not granted(asked, action)


def test_every_role_has_its_grants():
    assert set(GRANTS) == set(Role)
    assert may_give({"owner"}, {"owner", "viewer"})
    assert not may_give({"admin"}, {"owner"})
    assert not may_give({"owner"}, {"operator"})
    assert not may_give({"developer"}, {"developer"})
