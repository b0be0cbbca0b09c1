"""One live transcription session, from its first event to the close of its socket.

Three tasks: one hears the client, one tells it what the service says, one watches the
credential and the clock. Whichever ends first ends the session; the work is settled
exactly once, before the client is told how it ended. Made by `api/realtime.py`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from atrium_common.domain import Capability, Usage
from atrium_common.errors import (
    AtriumError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from atrium_gateway.api.realtime_config import SessionConfig
from atrium_gateway.api.realtime_hearing import Hearing
from atrium_gateway.api.realtime_items import Items
from atrium_gateway.api.realtime_socket import (
    LEFT,
    RESTARTING,
    Ending,
    RealtimeSocket,
    SocketEnded,
    failed,
    timed_out,
)
from atrium_gateway.auth.principal import Principal
from atrium_gateway.deps import Gateway
from atrium_gateway.errors import HttpFailure, describe
from atrium_gateway.middleware.request_record import RequestRecord
from atrium_gateway.pipeline import AUDIO_SHARE, Job, Run
from atrium_gateway.quota.limits import Unit
from atrium_gateway.upstreams.live import LiveTurns, TurnEnded, TurnEvent
from atrium_gateway.upstreams.port import Caller
from atrium_gateway.upstreams.stt import TRANSCRIBE_LIVE

logger = structlog.get_logger(__name__)

_TRANSCRIPTION = "session.audio.input.transcription"
_FIELDS = {
    "language": f"{_TRANSCRIPTION}.language",
    "model": f"{_TRANSCRIPTION}.model",
    "prompt": f"{_TRANSCRIPTION}.prompt",
    "hotwords": f"{_TRANSCRIPTION}.keywords",
}
"""The service's names of what the client has set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTerms:
    """What a session begins with.

    Attributes:
        principal: Who is charged.
        authenticate: Checks the credential again.
        config: The set-up before any update.
        record: For the access log.
    """

    principal: Principal
    authenticate: Callable[[], Awaitable[Principal]]
    config: SessionConfig
    record: RequestRecord


class LiveSession:
    """Speaks with one client over an accepted socket; `run` it once."""

    def __init__(
        self, gateway: Gateway, socket: RealtimeSocket, terms: SessionTerms, *, prefix: str
    ) -> None:
        """Args: prefix: Makes the ids of this session and its items its own."""
        self._gateway = gateway
        self._limits = gateway.live.limits
        self._socket = socket
        self._terms = terms
        self._id = f"sess_{prefix}"
        self._ends = time.monotonic() + self._limits.session_seconds
        self._expires_at = int(gateway.now().timestamp() + self._limits.session_seconds)
        self._items = Items(socket, prefix=prefix)
        self._hearing = Hearing(
            socket,
            self._items,
            terms.config,
            resolve=self._resolve,
            describe=self._described,
            explain=self._failure,
        )
        self._turns: LiveTurns | None = None

    async def run(self) -> None:
        """Serves until somebody ends it; raises nothing but a cancellation."""
        guard = asyncio.create_task(self._guard())
        try:
            ending = await self._serve(guard)
        except SocketEnded as err:
            ending = err.ending
        except Exception as err:  # the session's edge: every error is told to the client
            ending = await self._broken(err)
        finally:
            await _stopped(guard)
        await self._socket.close(ending)

    async def _serve(self, guard: "asyncio.Task[Ending]") -> Ending:
        await self._socket.send("session.created", session=self._described(self._terms.config))
        hearing = asyncio.create_task(self._hearing.until_audio())
        try:
            await asyncio.wait({hearing, guard}, return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                return guard.result()
            hearing.result()
        finally:
            await _stopped(hearing)
        # Reserved from the first audio on: until then a session costs nobody anything.
        job = self._job(self._hearing.config.model_id, AUDIO_SHARE)
        async with self._gateway.pipeline.run(
            self._terms.principal, job, request_id=self._terms.record.request_id
        ) as run:
            if self._turns is None:
                raise RuntimeError("the pipeline has started no call")
            return await self._converse(run, self._turns, guard)

    async def _converse(
        self, run: Run[TurnEvent], turns: LiveTurns, guard: "asyncio.Task[Ending]"
    ) -> Ending:
        """Hears and tells until one of the two, or the guard, has a reason to end."""
        hearing = asyncio.create_task(self._hear(run, turns))
        telling = asyncio.create_task(self._tell(run))
        try:
            await asyncio.wait({hearing, telling, guard}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()  # it has failed: there is more to tell until `turns.end`
            ending = hearing.result() if hearing.done() else guard.result()
            if ending.last_words:
                await _stopped(hearing)
                await self._last_words(turns, telling)
        except SocketEnded as err:
            ending = err.ending
        finally:
            await _stopped(hearing)
            await _stopped(telling)
        if ending is LEFT and not self._items.unfinished:
            run.complete()
        return ending

    async def _hear(self, run: Run[TurnEvent], turns: LiveTurns) -> Ending:
        try:
            await self._hearing.go_on(run, turns)
        except SocketEnded as err:
            return err.ending
        except QuotaExceeded as err:
            return failed(self._failure(err), last_words=True)

    async def _tell(self, run: Run[TurnEvent]) -> None:
        """Tells the client what the service says, until all turns have ended."""
        async for event in run:
            if isinstance(event, TurnEnded):
                await self._items.ended(event.turn, run.usage)
            else:
                await self._items.heard(event.turn, event.step, run.usage)

    async def _last_words(self, turns: LiveTurns, telling: "asyncio.Task[None]") -> None:
        """Lets the service write down what it has; gives up when that takes too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.final_seconds):
                await turns.end()
                await asyncio.shield(telling)

    async def _guard(self) -> Ending:
        """Waits for what ends a session from outside: a restart, its age, its credential."""
        while not await self._gateway.live.stopping(within=self._limits.check_seconds):
            if time.monotonic() >= self._ends:
                minutes = self._limits.session_seconds / 60
                return timed_out(
                    "session_expired", f"The session has reached its {minutes:g} minutes."
                )
            try:
                await self._terms.authenticate()
            except Unavailable:
                continue  # the database is away: what held a moment ago holds
            except (Unauthenticated, PermissionDenied) as err:
                return failed(self._failure(err))
        return RESTARTING

    async def _broken(self, error: Exception) -> Ending:
        if not isinstance(error, AtriumError):
            request_id = self._terms.record.request_id
            logger.error("unhandled exception", request_id=request_id, exc_info=error)
        failure = self._failure(error)
        try:
            await self._items.fail(failure)
        except SocketEnded as err:
            return err.ending
        return failed(failure)

    def _job(self, model: str, audio: timedelta) -> Job[TurnEvent]:
        def call(caller: Caller) -> LiveTurns:
            self._turns = LiveTurns(lambda speech: self._gateway.stt.live(speech, caller))
            return self._turns

        async def fit(seconds: int) -> Job[TurnEvent]:
            return self._job(model, timedelta(seconds=seconds))

        return Job(
            capability=Capability.TRANSCRIPTION,
            model=model,
            method=TRANSCRIBE_LIVE,
            estimate=Usage(model=model, input_audio=audio, estimated=True),
            call=call,
            fit=fit,
            fits=Unit.AUDIO_SECONDS,
        )

    def _resolve(self, name: str) -> str:
        try:
            entry = self._gateway.resolve(name, Capability.TRANSCRIPTION)
        except NotFound as err:
            raise InvalidArgument(err.message, reason=err.reason, field=_FIELDS["model"]) from err
        self._terms.record.model = entry.id
        return entry.id

    def _described(self, config: SessionConfig) -> dict[str, Any]:
        return config.described(self._id, self._expires_at)

    def _failure(self, error: Exception) -> HttpFailure:
        if isinstance(error, InvalidArgument) and error.field is not None:
            name = error.field.rpartition(".")[2]
            if not error.field.startswith("session."):
                error.field = _FIELDS.get(name, error.field)
        return describe(error, request_id=self._terms.record.request_id)


async def _stopped(task: "asyncio.Task[Any]") -> None:
    """Cancels a task and waits until it has ended; what it raised is told elsewhere."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
