"""What a new key is to allow, read strictly; the CLI and `/api/keys` give what people wrote."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument
from atrium_gateway.auth.networks import read_network
from atrium_gateway.auth.roles import ANY_SCOPE, Action, Role

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_MOST = 64
_AREAS = frozenset(action.partition(":")[0] for action in Action)
_SCOPES = frozenset({ANY_SCOPE, *Capability, *Action}) | _AREAS


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
    """What a key allows.

    Attributes:
        scopes: Capabilities, actions, areas or ``"*"``.
        roles: Roles of the table.
        models: Ids or aliases; all if empty.
        networks: Networks in their usual form; any if empty.
    """

    scopes: frozenset[str]
    roles: frozenset[str]
    models: frozenset[str]
    networks: tuple[str, ...]


def read_terms(
    *,
    scopes: Iterable[str],
    roles: Iterable[str] = (),
    models: Iterable[str] = (),
    networks: Iterable[str] = (),
) -> KeyTerms:
    """Reads terms.

    Raises:
        InvalidArgument: A scope or a role that does not exist, or what can be no model and
            no network; `field` names the list.
    """
    return KeyTerms(
        scopes=frozenset(_known(_few(scopes, "scopes"), _SCOPES, "scopes")),
        roles=frozenset(_known(_few(roles, "roles"), frozenset(Role), "roles")),
        models=frozenset(_model(name) for name in _few(models, "models")),
        networks=tuple(dict.fromkeys(_network(text) for text in _few(networks, "networks"))),
    )


def _few(texts: Iterable[str], field: str) -> list[str]:
    found = list(texts)
    if len(found) > _MOST:
        raise InvalidArgument(f"{field} has more than {_MOST} entries.", field=field)
    return found


def _known(texts: list[str], known: frozenset[str], field: str) -> list[str]:
    for text in texts:
        if text not in known:
            raise InvalidArgument(
                f"{text[:100]!r} is none of the {field}: {', '.join(sorted(known))}.", field=field
            )
    return texts


def _model(text: str) -> str:
    if not _MODEL.fullmatch(text):
        raise InvalidArgument(f"{text[:100]!r} can be no model.", field="models")
    return text


def _network(text: str) -> str:
    try:
        return str(read_network(text))
    except ValueError as err:
        raise InvalidArgument(
            f"{text[:100]!r} is no network such as 10.1.0.0/16.", field="networks"
        ) from err
