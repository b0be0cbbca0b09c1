"""The gateway's core, composed once: identity, admission and ledger without any network.

`app.py`, the admission server and the tests enter `open_core`; the CLI uses the parts.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils import uuid7

from atrium_common.catalogue import Catalogue
from atrium_gateway.administration.desk import Administration
from atrium_gateway.auth.authenticator import Authenticator
from atrium_gateway.auth.tokens import TokenAuthority
from atrium_gateway.background import looking
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.idempotency.keeper import sweeping
from atrium_gateway.idempotency.store import AnswerStore
from atrium_gateway.identity import open_identity
from atrium_gateway.late_limits import LOOK_SECONDS, LateLimits
from atrium_gateway.observability.admission import WatchedAdmission
from atrium_gateway.quota.policy import LimitPolicy
from atrium_gateway.replica import alone, open_quota_store, own_spool, telling_changes
from atrium_gateway.replica import sweeping as leases_swept
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.standing import Standing
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.tenants.repository import TenantRepository
from atrium_gateway.usage.ledger import SpooledLedger
from atrium_gateway.usage.price import catalogue_costs, catalogue_prices
from atrium_gateway.usage.price_store import PriceRepository
from atrium_gateway.usage.price_watch import watched_prices
from atrium_gateway.usage.reports import UsageReports
from atrium_gateway.usage.rezone import following_zones


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What the doors of the gateway share.

    Attributes:
        authenticator: Token -> principal.
        admission: Reserve, then settle.
        reports: What `/api/usage` shows.
        standing: What is left of limits, and whose days are whose.
        tenants: Tenants, keys and limits in the database.
        tokens: Mints tokens.
        ledger: The ledger itself, for metrics and flushes.
        answers: What is kept for `Idempotency-Key`.
        administration: Where tenants, keys and limits are changed.
    """

    authenticator: Authenticator
    admission: WatchedAdmission
    reports: UsageReports
    standing: Standing
    tenants: TenantRepository
    tokens: TokenAuthority
    ledger: SpooledLedger
    answers: AnswerStore
    administration: Administration


@asynccontextmanager
async def open_core(
    settings: GatewaySettings,
    *,
    catalogue: Catalogue | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Core]:
    """Opens the core of a gateway process over `settings.state_dir`.

    Upgrades the database, closes what a crash left open and starts the background tasks;
    on leaving, writes out everything.

    Args:
        settings: Settings of the gateway.
        catalogue: States the prices; loaded from `settings.catalogue` if not given.
        clock: Returns Unix seconds.

    Raises:
        Conflict: Another gateway process runs over the same state, and no store is shared.
        CatalogueError: The catalogue can't be read.
        Unavailable: Disk or database refuse.
    """
    catalogue = catalogue or settings.open_catalogue()
    async with AsyncExitStack() as stack:
        spool = stack.enter_context(own_spool(settings))
        engine = open_engine(settings.resolved_database_url())
        stack.push_async_callback(engine.dispose)
        with alone(settings.state_dir / "upgrade.lock"):
            await upgrade(engine)
        books = PriceRepository(engine)
        # To the millisecond, as the ledger has it: what is admitted now has prices.
        now = datetime.fromtimestamp(int(clock() * 1000) / 1000, UTC)
        await books.put_catalogue(catalogue_prices(catalogue), catalogue_costs(catalogue), now=now)
        prices = await stack.enter_async_context(watched_prices(books))
        ledger = SpooledLedger(
            engine,
            spool,
            segment_bytes=settings.spool_segment_bytes,
            write_interval=settings.writer_interval_seconds,
            clock=clock,
        )
        stack.push_async_callback(ledger.stop)
        await ledger.start(prices, leave_open=settings.quota_redis_url is not None)
        await stack.enter_async_context(following_zones(engine))
        tenants = TenantRepository(engine)
        directory = Directory(tenants, clock=time.monotonic)
        await stack.enter_async_context(telling_changes(settings, engine, heard=directory.refresh))
        tokens = token_authority(settings, clock=clock)
        store, shared = await stack.enter_async_context(
            open_quota_store(settings, falls_back=directory.falls_back, clock=clock)
        )
        reports = UsageReports(engine, flush=ledger.flush)
        policy = LimitPolicy(
            default_amount=settings.default_limit, default_window=settings.default_limit_window
        )
        admission = WatchedAdmission(
            directory=directory,
            policy=policy,
            store=store,
            shared=shared,
            ledger=ledger,
            prices=prices,
            lease=timedelta(seconds=settings.lease_seconds),
            clock=clock,
            new_id=lambda: str(uuid7()),
        )
        if shared is not None:
            admission.sweeper.adopt(ledger.recovered)
        await stack.enter_async_context(leases_swept(admission))
        late = LateLimits(
            admission.sweeper.books, directory=directory, policy=policy, prices=prices, clock=clock
        )
        admission.sweeper.books.late = late
        await stack.enter_async_context(looking(late.look, every=LOOK_SECONDS, name="late-limits"))
        authenticator = await stack.enter_async_context(
            open_identity(
                settings,
                tenants=tenants,
                directory=directory,
                tokens=tokens,
                catalogue=catalogue,
                clock=clock,
            )
        )
        answers = AnswerStore(engine, settings.idempotency_bounds(), clock=clock)
        stack.push_async_callback(answers.close)
        await stack.enter_async_context(sweeping(answers))
        yield Core(
            answers=answers,
            authenticator=authenticator,
            admission=admission,
            reports=reports,
            standing=Standing(
                directory=directory,
                policy=policy,
                reports=reports,
                peek=admission.peek,
                catalogue=catalogue,
                clock=clock,
            ),
            tenants=tenants,
            tokens=tokens,
            ledger=ledger,
            administration=administration_desk(engine, settings, clock=clock, flush=ledger.flush),
        )


def administration_desk(
    engine: AsyncEngine,
    settings: GatewaySettings,
    *,
    clock: Callable[[], float],
    flush: Callable[[], Awaitable[None]],
) -> Administration:
    """Where changes are made and audited, over an upgraded database."""
    return Administration(
        engine=engine,
        pepper=settings.resolved_key_pepper(),
        now=lambda: datetime.fromtimestamp(clock(), UTC),
        new_id=lambda: str(uuid7()),
        policy=LimitPolicy(
            default_amount=settings.default_limit, default_window=settings.default_limit_window
        ),
        exports=settings.exports_dir,
        flush=flush,
    )


def token_authority(settings: GatewaySettings, *, clock: Callable[[], float]) -> TokenAuthority:
    """The authority over tenant tokens that `settings` describe."""
    return TokenAuthority(
        secret=settings.resolved_jwt_secret(),
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        clock=clock,
    )


@asynccontextmanager
async def open_tenants(
    settings: GatewaySettings,
) -> AsyncIterator[tuple[TenantRepository, AsyncEngine]]:
    """Opens the database alone, upgraded; runs beside a gateway."""
    engine = open_engine(settings.resolved_database_url())
    try:
        await upgrade(engine)
        async with telling_changes(settings, engine):
            yield TenantRepository(engine), engine
    finally:
        await engine.dispose()
