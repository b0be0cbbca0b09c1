"""Who takes the next step: fair between tenants, short jobs first within one.

The loop asks `choose` before each tick and tells `charge` who took a step. Plain Python:
no clock, no thread, no torch.

Within a tenant: by priority, then fewest remaining pixel-steps, then order of arrival.
So that none starves, its oldest picture is first once it was passed over `PATIENCE` times;
so until it is finished it takes at least every (`PATIENCE` + 1)-th of its tenant's turns,
and then another one is the oldest.

Between tenants: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), as in
`atrium_common.work.fair`, charged with the pixel-steps that were really served. A tenant
has a tag, the virtual time up to which it was served; a step of p pixels moves it by
p / weight. The tenant with the smallest tag *leads*: its first picture decides the group
(what can share a UNet call), and its tag becomes the virtual time. The batch is filled
with pictures of that group, each time from the tenant whose tag would then be smallest.
A tenant who comes new starts at the virtual time, at or before everyone else, and leads
the next tick, whatever the others have waiting and of whatever size.

One tick is one group, and a picture takes one step in it. So a tick can serve a tenant
more than its share, where the others can't fill the batch; that must not be held against
it, nor may others save up what they could not have used:

- Who had every picture of the group in the batch is lifted to where the filling ended.
- Who would have another picture first (of another group, or a new one where no more may
  begin) rides along in places that nobody else wants, free of charge: it waits for its
  own turn, which comes the sooner.
"""

import heapq
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

PATIENCE = 8
"""Turns of its tenant in which the oldest picture may be passed over in a row."""


@dataclass(slots=True, eq=False, kw_only=True)
class Contender:
    """What the order knows of one unfinished picture; compared by identity.

    Attributes:
        tenant: Whose it is.
        weight: The tenant's weight against the others, above 0.
        priority: Within the tenant, highest first.
        group: Only pictures of equal groups share a UNet call.
        pixels: Pixels of the picture, the price of a step.
        load: Pixels times rows that it adds to a UNet call, for the memory budget.
        steps_left: Steps until it is finished, at least 1.
        begun: True once it has latents.
        number: Order of arrival; `StepOrder.add` gives it.
    """

    tenant: str
    weight: float
    priority: int
    group: Hashable
    pixels: int
    load: int
    steps_left: int
    begun: bool = False
    number: int = 0

    @property
    def span(self) -> float:
        """Virtual time that a step takes from its tenant."""
        return self.pixels / self.weight

    @property
    def place(self) -> tuple[int, int, int]:
        """Its place among its tenant's; the smallest is first."""
        return (-self.priority, self.pixels * self.steps_left, self.number)


C = TypeVar("C", bound=Contender)


@dataclass(slots=True, kw_only=True)
class _Flow(Generic[C]):
    """One tenant.

    Attributes:
        tag: Virtual time up to which it was served.
        number: Order in which tenants came.
        last_tick: When it last took a step; -1 for never.
        pictures: Its pictures by number, so in order of arrival.
        passed_over: Turns in a row that went by the oldest.
        head: What `first` returned in the present tick.
    """

    tag: float
    number: int
    last_tick: int = -1
    pictures: dict[int, C] = field(default_factory=dict)
    passed_over: int = 0
    head: C = field(init=False)

    @property
    def turn(self) -> tuple[float, int, int]:
        """Smallest leads; of equal tags, who was served longest ago or never."""
        return (self.tag, self.last_tick, self.number)

    @property
    def oldest(self) -> C:
        return next(iter(self.pictures.values()))

    def size_of(self, group: Hashable) -> int:
        return sum(picture.group == group for picture in self.pictures.values())

    def first(self) -> C:
        if self.passed_over >= PATIENCE:
            return self.oldest
        return min(self.pictures.values(), key=lambda picture: picture.place)

    def line(self, group: Hashable, may: Callable[[C], bool]) -> Iterator[C]:
        """Yields the pictures of a group that may take part; none if the head does not."""
        if self.head.group == group and may(self.head):
            yield self.head
            yield from self.rest(group, may)

    def rest(self, group: Hashable, may: Callable[[C], bool]) -> Iterator[C]:
        """Yields the pictures of a group that may take part, but for the head."""
        others = (p for p in self.pictures.values() if p.group == group and p is not self.head)
        yield from filter(may, sorted(others, key=lambda picture: picture.place))


@dataclass(slots=True, kw_only=True)
class _Filling(Generic[C]):
    """A batch while it is filled."""

    fits: Callable[[int, int], bool]
    begins: int
    batch: list[C] = field(default_factory=list)
    load: int = 0
    full: bool = False

    def may(self, picture: C) -> bool:
        return picture.begun or self.begins > 0

    def fill(self, lines: list[tuple[float, int, int, Iterator[C]]]) -> None:
        """Takes from the line with the smallest tag, again and again."""
        heapq.heapify(lines)
        while lines and not self.full:
            tag, last_tick, number, line = heapq.heappop(lines)
            picture = next(line, None)
            if picture is not None:
                self._take(picture)
                heapq.heappush(lines, (tag + picture.span, last_tick, number, line))

    def _take(self, picture: C) -> None:
        load = self.load + picture.load
        if self.batch and not self.fits(len(self.batch) + 1, load):
            self.full = True
            return
        self.batch.append(picture)
        self.load = load
        self.begins -= not picture.begun


class StepOrder(Generic[C]):
    """The unfinished pictures of many tenants. Not thread-safe.

    `choose` costs at most a sort of the pictures of one group, `charge` a look at each
    picture of the tenants that were served, the rest O(1).
    """

    def __init__(self) -> None:
        """Makes an order with nothing in it."""
        self._flows: dict[str, _Flow[C]] = {}
        self._virtual_time = 0.0
        self._tick = 0
        self._size = 0
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return self._size

    def add(self, picture: C) -> None:
        """Puts a picture in line."""
        picture.number = next(self._numbers)
        flow = self._flows.get(picture.tenant)
        if flow is None:
            flow = _Flow(tag=self._virtual_time, number=picture.number)
            self._flows[picture.tenant] = flow
        elif not flow.pictures:
            flow.tag = max(flow.tag, self._virtual_time)
        flow.pictures[picture.number] = picture
        self._size += 1

    def remove(self, picture: C) -> None:
        """Takes a picture out, finished or not; does nothing if it is not in line."""
        flow = self._flows.get(picture.tenant)
        if flow is None or flow.pictures.pop(picture.number, None) is None:
            return
        self._size -= 1
        if not flow.pictures:
            flow.passed_over = 0
        if not self._size:
            # An idle server owes nobody anything, and what a tenant used while it was
            # alone is not held against it.
            self._flows.clear()
            self._virtual_time = 0.0

    def choose(self, fits: Callable[[int, int], bool], *, begins: int) -> list[C]:
        """Chooses the pictures of the next tick, in order; empty if none is in line.

        The first one is chosen whatever `fits` says.

        Args:
            fits: Tells if so many pictures with so much load together are allowed.
            begins: Pictures among them that may be new, at least 1.
        """
        flows = [flow for flow in self._flows.values() if flow.pictures]
        if not flows:
            return []
        for flow in flows:
            flow.head = flow.first()
        leading = min(flows, key=lambda flow: flow.turn)
        self._virtual_time = leading.tag
        group = leading.head.group
        filling: _Filling[C] = _Filling(fits=fits, begins=begins)
        filling.fill([(*flow.turn, flow.line(group, filling.may)) for flow in flows])
        riding = [flow for flow in flows if flow.head not in filling.batch]
        filling.fill([(*flow.turn, flow.rest(group, filling.may)) for flow in riding])
        return filling.batch

    def charge(self, served: Sequence[C]) -> None:
        """Says which of those that were chosen took a step, in order, before any leaves."""
        by_tenant: dict[str, list[C]] = {}
        for picture in served:
            by_tenant.setdefault(picture.tenant, []).append(picture)
        level = self._virtual_time
        flows = [(self._flows[tenant], pictures) for tenant, pictures in by_tenant.items()]
        charged = [(flow, pictures) for flow, pictures in flows if flow.head in pictures]
        for flow, pictures in charged:
            flow.tag += sum(picture.span for picture in pictures)
            flow.last_tick = self._tick
            flow.passed_over = 0 if flow.oldest in pictures else flow.passed_over + 1
            level = max(level, flow.tag - pictures[-1].span)
        for flow, pictures in charged:
            if len(pictures) == flow.size_of(pictures[0].group):
                flow.tag = max(flow.tag, level)
        for picture in served:
            picture.steps_left -= 1
        self._tick += 1
        self._forget_the_caught_up()

    def _forget_the_caught_up(self) -> None:
        """Drops the tenants without pictures whose tags say no more than the virtual time."""
        self._flows = {
            tenant: flow
            for tenant, flow in self._flows.items()
            if flow.pictures or flow.tag > self._virtual_time
        }
