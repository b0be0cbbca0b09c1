"""What a live session's client asks for: one event after the other, done or refused by name.

`realtime_session.py` runs it beside the task that tells what the service says.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

from msgspec import structs

from atrium_common.chunks import CHUNK_BYTES
from atrium_common.errors import InvalidArgument
from atrium_gateway.api.realtime_config import SessionConfig, model_is_set, to_pcm, wanted_model
from atrium_gateway.api.realtime_items import Items, Turn
from atrium_gateway.api.realtime_schema import (
    Append,
    Clear,
    ClientEvent,
    SessionUpdate,
    read_event,
    read_head,
)
from atrium_gateway.api.realtime_socket import RealtimeSocket
from atrium_gateway.errors import HttpFailure
from atrium_gateway.pipeline import Run
from atrium_gateway.upstreams.live import LiveTurns, TurnEvent

_LEAST_COMMIT = timedelta(milliseconds=100)
_SAMPLE_BYTES = 2

Resolve = Callable[[str], str]
Describe = Callable[[SessionConfig], dict[str, object]]


class Hearing:
    """Hears one client. Until there is a `run`, it stops at the first audio."""

    def __init__(
        self,
        socket: RealtimeSocket,
        items: Items,
        config: SessionConfig,
        *,
        resolve: Resolve,
        describe: Describe,
        explain: Callable[[Exception], HttpFailure],
    ) -> None:
        """Begins with nothing heard.

        Args:
            socket: Where events come from.
            items: Takes note of turns and commits.
            config: The set-up before any update.
            resolve: Gives the catalogue id of a model; raises `InvalidArgument`.
            describe: Gives the session as the client sees it.
            explain: Says an error in HTTP's terms.
        """
        self.config = config
        self._socket = socket
        self._items = items
        self._resolve = resolve
        self._describe = describe
        self._explain = explain
        self._waiting: Append | None = None
        self._admitted: tuple[Run[TurnEvent], LiveTurns] | None = None
        self._turn = 0
        self._odd = b""

    async def until_audio(self) -> None:
        """Takes events until there is audio; it waits for `go_on`."""
        while self._waiting is None:
            await self._take(await self._socket.receive())

    async def go_on(self, run: Run[TurnEvent], turns: LiveTurns) -> NoReturn:
        """Takes the audio that waits, then events without end.

        Raises:
            QuotaExceeded: The reservation can't grow any more.
            SocketEnded: The client has left, or is silent for too long.
        """
        self._admitted = run, turns
        if self._waiting is not None:
            await self._append(self._waiting, run, turns)
        while True:
            await self._take(await self._socket.receive())

    async def _take(self, message: str | bytes) -> None:
        """Does what one event asks for; what is wrong with it is told, and nothing lost."""
        event_id = None
        try:
            if isinstance(message, bytes):
                raise InvalidArgument(
                    "Send events as text; audio goes into 'input_audio_buffer.append'.",
                    reason="BINARY_MESSAGE",
                )
            head = read_head(message)
            event_id = head.event_id
            await self._do(read_event(message, head.type))
        except InvalidArgument as err:
            await self._socket.fail(self._explain(err), event_id=event_id)

    async def _do(self, event: ClientEvent) -> None:
        if isinstance(event, Append):
            if self._admitted is None:
                self._waiting = event
            else:
                await self._append(event, *self._admitted)
        elif isinstance(event, SessionUpdate):
            await self._update(event)
        elif isinstance(event, Clear):
            await self._clear()
        else:
            await self._commit()

    async def _append(self, event: Append, run: Run[TurnEvent], turns: LiveTurns) -> None:
        data = self._odd + to_pcm(self.config.format, event.audio)
        whole = len(data) - len(data) % _SAMPLE_BYTES
        self._odd = data[whole:]
        rate = self.config.sample_rate
        step = min(rate * _SAMPLE_BYTES, CHUNK_BYTES)
        for start in range(0, whole, step):
            piece = data[start : min(start + step, whole)]
            await run.cover(turns.sent + timedelta(seconds=len(piece) / _SAMPLE_BYTES / rate))
            if not self._turn:
                await self._begin(turns)
            await turns.send(piece)

    async def _begin(self, turns: LiveTurns) -> None:
        offset = turns.sent
        self._turn = await turns.begin(self.config.speech())
        turn = Turn(
            offset=offset,
            by_silence=self.config.turn_detection is not None,
            logprobs=self.config.logprobs,
        )
        self._items.begin(self._turn, turn)

    async def _commit(self) -> None:
        heard = self._admitted[1].sent_in_turn if self._admitted else timedelta()
        if heard < _LEAST_COMMIT:
            raise InvalidArgument(
                "The buffer is too small to commit: it holds "
                f"{heard.total_seconds() * 1000:.0f} ms of audio, at least 100 are needed.",
                reason="INPUT_AUDIO_BUFFER_COMMIT_EMPTY",
            )
        await self._items.commit(self._turn)
        await self._finish()

    async def _finish(self) -> None:
        """The service writes down the rest of the turn; the next audio begins another."""
        self._turn, self._odd = 0, b""
        if self._admitted is not None:
            await self._admitted[1].finish()

    async def _clear(self) -> None:
        if self._admitted is not None:
            self._admitted[1].drop()
        self._items.drop(self._turn)
        self._turn, self._odd = 0, b""
        await self._socket.send("input_audio_buffer.cleared")

    async def _update(self, event: SessionUpdate) -> None:
        config = self.config.updated(event.session)
        asked = wanted_model(event.session)
        if asked is not None:
            model = self._resolve(asked)
            if self._admitted is not None and model != config.model_id:
                raise model_is_set(asked)
            config = structs.replace(config, model=asked or model, model_id=model)
        if config != self.config:
            # What was said before is written down as it was asked for then.
            await self._finish()
            self.config = config
        await self._socket.send("session.updated", session=self._describe(config))
