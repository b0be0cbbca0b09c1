"""Loads and unloads a model over and over and tells the process's memory at each step.

A program, because memory is measured in a process of its own, where no other test has left
any: ``python -m atrium_common.testing.rounds MODULE:CLASS MODEL ROUNDS``. `memory_rounds` runs
it for the tests of services whose engines load real weights.
"""

import asyncio
import importlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from atrium_common.catalogue import Catalogue
from atrium_common.lifecycle import Lifecycle, LifecyclePolicy, device_bytes, limit_arenas
from atrium_common.testing.toys import ToyClock
from atrium_common.weights import WeightStore

_ROOT = Path(__file__).resolve().parents[5]
_KEEP_ALIVE = 300.0
_MOST_GROWTH = 0.05


@dataclass(frozen=True, slots=True)
class MemoryRounds:
    """The process's resident memory in bytes.

    Attributes:
        before: When the engine's libraries were imported and nothing was loaded.
        loaded: After each load; the first warm-up is part of it.
        unloaded: After each idle unload.
        reported: What `ModelInfo.memory_bytes` told of each load.
    """

    before: int
    loaded: list[int]
    unloaded: list[int]
    reported: list[int]

    def check(self, size: int) -> None:
        """Checks that memory comes back and that rounds do not add up.

        The first round is left out of the growth: libraries make lasting state in it.

        Args:
            size: Bytes of the model's weights, at least.

        Raises:
            AssertionError: A round frees less than half the model, or the last one's process
                is more than 5% larger than the second one's.
        """
        freed = [high - low for high, low in zip(self.loaded, self.unloaded, strict=True)]
        if min(freed) < size // 2:
            raise AssertionError(f"a model of {size} bytes gave back {min(freed)}: {self}")
        growth = self.loaded[-1] / self.loaded[1] - 1
        if growth > _MOST_GROWTH:
            raise AssertionError(f"the process grew by {growth:.1%}: {self}")


async def memory_rounds(engine: str, model: str, *, rounds: int) -> MemoryRounds:
    """Plays the rounds in a process of its own.

    Args:
        engine: ``"module:Class"``.
        model: Id in the starter catalogue; its files are there.
        rounds: How often it is loaded and left idle.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __spec__.name, engine, model, str(rounds)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the rounds ended with {process.returncode}")
    return MemoryRounds(**json.loads(told.splitlines()[-1]))


async def _play(engine_path: str, model: str, rounds: int) -> MemoryRounds:
    limit_arenas()
    entries = [e for e in Catalogue.load(_ROOT / "models" / "starter.yaml") if e.id == model]
    store = WeightStore(Path(os.environ.get("ATRIUM_MODELS_DIR", _ROOT / ".atrium" / "models")))
    module, _, name = engine_path.partition(":")
    clock = ToyClock()
    lifecycle = Lifecycle(LifecyclePolicy(keep_alive=_KEEP_ALIVE), clock=clock)
    engine = getattr(importlib.import_module(module), name)(
        entries, store=store, lifecycle=lifecycle
    )
    found = MemoryRounds(device_bytes() or 0, [], [], [])
    for _ in range(rounds):
        await engine.load_model(model)
        found.loaded.append(device_bytes() or 0)
        found.reported.append(engine.models()[0].memory_bytes)
        clock.seconds += _KEEP_ALIVE
        await lifecycle.sweep()
        found.unloaded.append(device_bytes() or 0)
    await engine.close()
    return found


if __name__ == "__main__":
    played = asyncio.run(_play(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    sys.stdout.write(json.dumps(asdict(played)) + "\n")
