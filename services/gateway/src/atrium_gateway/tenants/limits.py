"""Reads and writes limits and plans; `TenantRepository` is one of these, and the CLI uses it."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, Executable, Row, Table, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from atrium_common.errors import Conflict, InvalidArgument, NotFound
from atrium_gateway.database import upsert
from atrium_gateway.quota.checks import MOST_OF_TENANT, check_limit, check_room
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.changes import changed
from atrium_gateway.tenants.domain import KEY_LEVEL, TENANT_LEVEL, USER_LEVEL, Plan
from atrium_gateway.tenants.keys import KeyRepository
from atrium_gateway.tenants.tables import plan_limits, plans, tenant_limits, tenants

_LONGEST_USER = 200
_Values = Mapping[str, str | int | None]


class LimitRepository(KeyRepository):
    """Limits of tenants, their keys and users, and of plans."""

    async def set_limit(self, tenant_id: str, limit: Limit, *, subject: str = TENANT_LEVEL) -> None:
        """Sets a limit; replaces the one of the same subject, selector, unit and window.

        Args:
            tenant_id: Whose.
            limit: The limit; without an amount it lifts the plan's or the default one.
            subject: ``"tenant"``, ``"key:<id>"`` or ``"user:<sub>"``.

        Raises:
            NotFound: There is no such tenant or key.
            InvalidArgument: The limit can't be counted or is one too many, or the subject is
                none.
        """
        await self._expect_subject(tenant_id, subject)
        async with self._engine.begin() as connection:
            version = await changed(connection)
            await self._put_limit(connection, tenant_id, subject, limit, since=version)

    async def remove_limit(
        self,
        tenant_id: str,
        *,
        selector: str,
        unit: Unit,
        window: Window,
        subject: str = TENANT_LEVEL,
    ) -> None:
        """Removes a limit, so that the plan's or the default one holds again.

        Raises:
            NotFound: There is no such limit.
        """
        async with self._engine.begin() as connection:
            version = await changed(connection)
            done = await connection.execute(
                delete(tenant_limits).where(
                    tenant_limits.c.tenant == tenant_id,
                    tenant_limits.c.subject == subject,
                    tenant_limits.c.selector == selector,
                    tenant_limits.c.unit == unit.value,
                    tenant_limits.c.window == window.value,
                )
            )
            expect_one(done.rowcount, f"The tenant {tenant_id!r} has no such limit.")
            if subject == TENANT_LEVEL:
                await _other_limits(connection, tenants.c.id == tenant_id, since=version)

    async def plan(self, plan_id: str) -> Plan | None:
        """One plan with its limits, or ``None``."""
        found = [plan for plan in await self.list_plans() if plan.id == plan_id]
        return found[0] if found else None

    async def list_plans(self) -> Sequence[Plan]:
        """All plans by id."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(select(plans).order_by(plans.c.id))).all()
            limits = await limits_of_plans(connection, {row.id for row in rows})
        return [Plan(id=row.id, name=row.name, limits=limits.get(row.id, ())) for row in rows]

    async def put_plan(self, plan_id: str, name: str) -> None:
        """Adds a plan without limits, or renames the one of this id."""
        async with self._engine.begin() as connection:
            await changed(connection)
            await connection.execute(self._named(plan_id, name))

    async def replace_plan(self, plan: Plan) -> None:
        """Adds a plan, or puts it in the place of the one of its id, limits and all.

        Raises:
            InvalidArgument: A limit can't be counted, or they are too many.
        """
        for limit in plan.limits:
            check_limit(limit, may_lift=False)
        rows = {(x.selector, x.unit, x.window): _row(x, plan=plan.id) for x in plan.limits}
        async with self._engine.begin() as connection:
            version = await changed(connection)
            await connection.execute(self._named(plan.id, plan.name))
            before = (await limits_of_plans(connection, {plan.id})).get(plan.id, ())
            if rows.keys() - {(x.selector, x.unit, x.window) for x in before}:
                await _other_limits(connection, tenants.c.plan == plan.id, since=version)
            await connection.execute(delete(plan_limits).where(plan_limits.c.plan == plan.id))
            if rows:
                await connection.execute(insert(plan_limits), list(rows.values()))
            await self._expect_room(connection, plan_limits, plan=plan.id)

    async def remove_plan(self, plan_id: str) -> None:
        """Removes a plan that no tenant is on.

        Raises:
            NotFound: There is no such plan.
            Conflict: Tenants are on it.
        """
        async with self._engine.begin() as connection:
            await changed(connection)
            users = select(func.count()).where(tenants.c.plan == plan_id)
            if count := await connection.scalar(users):
                raise Conflict(
                    f"{count} tenants are on the plan {plan_id!r}.", reason="PLAN_IN_USE"
                )
            await connection.execute(delete(plan_limits).where(plan_limits.c.plan == plan_id))
            done = await connection.execute(delete(plans).where(plans.c.id == plan_id))
            expect_one(done.rowcount, f"The plan {plan_id!r} does not exist.")

    async def set_plan_limit(self, plan_id: str, limit: Limit) -> None:
        """Sets a limit of a plan, for every tenant that is on it; replaces one of its kind.

        Raises:
            NotFound: There is no such plan.
            InvalidArgument: The limit can't be counted, or is one too many.
        """
        check_limit(limit, may_lift=False)
        async with self._engine.begin() as connection:
            version = await changed(connection)
            await expect_plan(connection, plan_id)
            row = _row(limit, plan=plan_id)
            known = await self._known(connection, plan_limits, row)
            await self._put(connection, plan_limits, row)
            if known is None:
                await self._expect_room(connection, plan_limits, plan=plan_id)
                await _other_limits(connection, tenants.c.plan == plan_id, since=version)

    async def remove_plan_limit(
        self, plan_id: str, *, selector: str, unit: Unit, window: Window
    ) -> None:
        """Removes a limit of a plan.

        Raises:
            NotFound: There is no such limit.
        """
        async with self._engine.begin() as connection:
            await changed(connection)
            done = await connection.execute(
                delete(plan_limits).where(
                    plan_limits.c.plan == plan_id,
                    plan_limits.c.selector == selector,
                    plan_limits.c.unit == unit.value,
                    plan_limits.c.window == window.value,
                )
            )
            expect_one(done.rowcount, f"The plan {plan_id!r} has no such limit.")

    def _named(self, plan_id: str, name: str) -> Executable:
        statement = upsert(self._engine.dialect.name)(plans).values(id=plan_id, name=name)
        return statement.on_conflict_do_update(index_elements=[plans.c.id], set_={"name": name})

    async def _put_limit(
        self,
        connection: AsyncConnection,
        tenant_id: str,
        subject: str,
        limit: Limit,
        *,
        since: int,
    ) -> None:
        check_limit(limit, may_lift=subject == TENANT_LEVEL)
        owner = {"tenant": tenant_id, "subject": subject}
        row = _row(limit, **owner)
        known = await self._known(connection, tenant_limits, row)
        if known is not None and known.amount is not None:
            since = known.since
        await self._put(connection, tenant_limits, {**row, "since": since})
        if known is not None:
            return
        await self._expect_room(connection, tenant_limits, **owner)
        query = select(func.count()).where(tenant_limits.c.tenant == tenant_id)
        if (await connection.scalar(query) or 0) > MOST_OF_TENANT:
            raise InvalidArgument(
                f"A tenant may have {MOST_OF_TENANT} limits with its keys and users.",
                field="limits",
            )

    async def _expect_room(self, connection: AsyncConnection, table: Table, **owner: str) -> None:
        """Raises `InvalidArgument` if a plan or a subject has too many limits by now."""
        own: list[ColumnElement[bool]] = [table.c[name] == value for name, value in owner.items()]
        query = select(func.count()).where(*own).group_by(table.c.selector)
        kind, _, _ = owner.get("subject", "plan").partition(":")
        check_room(f"A {kind}", (await connection.scalars(query)).all())

    async def _known(
        self, connection: AsyncConnection, table: Table, row: _Values
    ) -> Row[tuple[object, ...]] | None:
        """The limit of this kind that is there."""
        same = [column == row[column.name] for column in table.primary_key.columns]
        return (await connection.execute(select(table).where(*same))).one_or_none()

    async def _put(self, connection: AsyncConnection, table: Table, row: _Values) -> None:
        kind = list(table.primary_key.columns)
        more = {name: row[name] for name in row.keys() - {column.name for column in kind}}
        await connection.execute(
            upsert(self._engine.dialect.name)(table)
            .values(row)
            .on_conflict_do_update(index_elements=kind, set_=more)
        )

    async def _expect_subject(self, tenant_id: str, subject: str) -> None:
        await self._expect_tenant(tenant_id)
        if subject.startswith(KEY_LEVEL):
            key = await self.key(subject.removeprefix(KEY_LEVEL))
            if key is None or key.tenant != tenant_id:
                raise NotFound(f"The tenant {tenant_id!r} has no such key.")
        elif subject.startswith(USER_LEVEL):
            if not 1 <= len(subject) - len(USER_LEVEL) <= _LONGEST_USER:
                raise InvalidArgument(
                    f"A user's name has 1 to {_LONGEST_USER} characters.", field="user"
                )
        elif subject != TENANT_LEVEL:
            raise InvalidArgument("A limit is a tenant's, a key's or a user's.", field="subject")


async def limits_of_tenants(
    connection: AsyncConnection, first: str, last: str
) -> Mapping[str, Mapping[str, tuple[Limit, ...]]]:
    """Limits by tenant and subject, in a fixed order, of the tenants from `first` to `last`."""
    query = (
        select(tenant_limits)
        .where(tenant_limits.c.tenant.between(first, last))
        .order_by(*tenant_limits.primary_key.columns)
    )
    found: dict[str, dict[str, tuple[Limit, ...]]] = {}
    for row in await connection.execute(query):
        scoped = found.setdefault(row.tenant, {})
        scoped[row.subject] = (*scoped.get(row.subject, ()), _limit(row, since=row.since))
    return found


async def limits_of_plans(
    connection: AsyncConnection, plan_ids: Collection[str]
) -> Mapping[str, tuple[Limit, ...]]:
    """Limits by plan, in a fixed order."""
    if not plan_ids:
        return {}
    query = select(plan_limits).order_by(*plan_limits.primary_key.columns)
    found: dict[str, tuple[Limit, ...]] = {}
    for row in await connection.execute(query.where(plan_limits.c.plan.in_(plan_ids))):
        found[row.plan] = (*found.get(row.plan, ()), _limit(row))
    return found


async def _other_limits(
    connection: AsyncConnection, which: ColumnElement[bool], *, since: int
) -> None:
    """Says of tenants that limits hold for them which did not before."""
    await connection.execute(update(tenants).where(which).values(limits_since=since))


async def expect_plan(connection: AsyncConnection, plan_id: str) -> None:
    """Raises `NotFound` unless there is such a plan; after `changed`, it stays there."""
    if await connection.scalar(select(plans.c.id).where(plans.c.id == plan_id)) is None:
        raise NotFound(f"The plan {plan_id!r} does not exist.")


def expect_one(rows: int, message: str) -> None:
    """Raises `NotFound` with `message` unless exactly one row was changed."""
    if rows != 1:
        raise NotFound(message)


def _row(limit: Limit, **owner: str) -> _Values:
    return {
        **owner,
        "selector": limit.selector,
        "unit": limit.unit.value,
        "window": limit.window.value,
        "amount": limit.amount,
    }


def _limit(row: Row[tuple[object, ...]], *, since: int = 0) -> Limit:
    return Limit(row.selector, Unit(row.unit), Window(row.window), row.amount, since)
