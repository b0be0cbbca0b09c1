"""Who takes part in the next step: every running choice, and a piece of the prompts.

Choices are admitted in order of arrival while there are slots and cache. When the cache
is full, the youngest choice gives its part back and is read again later; the oldest
always goes on, so every request ends. The loop owns the scheduler.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from atrium_llm.engines.hf.attention import BLOCK, KeyValues, blocks
from atrium_llm.engines.hf.sequence import Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one model's loop may use.

    Attributes:
        slots: Choices that run at once.
        cache_tokens: Tokens of all caches together, whole blocks.
        prompt_chunk: Prompt tokens per step while other choices decode.
        prompt_chunk_alone: Prompt tokens per step while none does.
    """

    slots: int
    cache_tokens: int
    prompt_chunk: int
    prompt_chunk_alone: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The next `count` tokens of a choice that the cache does not hold."""

    choice: Choice
    count: int

    @property
    def completes(self) -> bool:
        """True if the step ends with a new token for the choice."""
        return self.count == self.choice.missing


class Scheduler:
    """Keeps the choices that wait and those that run, each in order of arrival."""

    def __init__(self, limits: Limits, layers: int) -> None:
        """Takes the limits, and the model's number of layers for new caches."""
        self._limits = limits
        self._layers = layers
        self._used = 0
        self.waiting: list[Choice] = []
        self.running: list[Choice] = []

    @property
    def used_tokens(self) -> int:
        """Tokens that the caches of running choices have room for."""
        return self._used

    def add(self, choice: Choice) -> None:
        """Puts a choice in line."""
        bisect.insort(self.waiting, choice, key=lambda other: other.order)

    def remove(self, choice: Choice) -> None:
        """Takes a choice out, wherever it is, and frees its cache."""
        if choice in self.running:
            self.running.remove(choice)
        elif choice in self.waiting:
            self.waiting.remove(choice)
        self._used -= choice.cache.capacity
        choice.cache = KeyValues(self._layers)

    def next_step(self) -> list[Piece]:
        """Chooses the pieces of the next step, oldest first; empty if there is no work."""
        self._make_room()
        self._admit()
        decoding = [Piece(choice, 1) for choice in self.running if choice.missing == 1]
        limits = self._limits
        budget = limits.prompt_chunk if decoding else limits.prompt_chunk_alone
        reading: list[Piece] = []
        for choice in self.running:
            if choice.missing > 1 and budget > 0:
                reading.append(Piece(choice, min(choice.missing, budget)))
                budget -= reading[-1].count
        return decoding + reading

    def fork(self, parent: Choice, children: Sequence[Choice]) -> None:
        """Starts the other choices of a request behind the prompt that `parent` has read.

        One that the cache has no room for waits and reads the prompt itself.
        """
        for child in children:
            capacity = parent.cache.capacity
            if len(self.running) < self._limits.slots and self._fits(capacity):
                child.cache = parent.cache.fork()
                self._used += capacity
                bisect.insort(self.running, child, key=lambda other: other.order)
            else:
                self.add(child)

    def _fits(self, tokens: int) -> bool:
        return self._used + tokens <= self._limits.cache_tokens

    def _admit(self) -> None:
        while self.waiting:
            choice = self.waiting[0]
            capacity = blocks(len(choice.tokens) + 1)
            if len(self.running) >= self._limits.slots or not self._fits(capacity):
                return
            self.waiting.pop(0)
            choice.cache.capacity = capacity
            self._used += capacity
            bisect.insort(self.running, choice, key=lambda other: other.order)

    def _make_room(self) -> None:
        """Grows the caches that are full, oldest first; the youngest make room."""
        for choice in tuple(self.running):
            if choice not in self.running or len(choice.tokens) <= choice.cache.capacity:
                continue
            while not self._fits(BLOCK) and self.running[-1] is not choice:
                self._give_back(self.running[-1])
            if self._fits(BLOCK):
                choice.cache.capacity += BLOCK
                self._used += BLOCK
            else:
                self._give_back(choice)

    def _give_back(self, choice: Choice) -> None:
        self.remove(choice)
        self.add(choice)
