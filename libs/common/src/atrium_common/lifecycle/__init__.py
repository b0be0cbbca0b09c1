"""When a service's models come into memory and when they leave it.

Every engine that loads weights owns a `ModelHost`; all hosts of a process share one
`Lifecycle`, which `__main__` opens by `atrium_common.composition.open_lifecycle` and hands to
the engines and to `serve`. What an engine adds to its own work::

    handling = ModelHandling(open_model=self._open, warm_up=self._warm_up)
    self._host = ModelHost(self.name, entries, handling, lifecycle=lifecycle)
    async def load(self): await self._host.load()            # those that are to be there at start
    async def load_model(self, model): await self._host.load_model(model)
    async def unload_model(self, model): await self._host.unload_model(model)
    async def close(self): await self._host.close()
    async def verify(self, model): await self._host.verify(model)
    def models(self): return self._host.models()

and each request runs in ``async with self._host.use(job.model) as loaded:``.

- **First use loads.** Any number of first users share one load; one that is cancelled takes
  nothing from the others. A load opens the model, warms it up (the engine's verification) and
  measures what it took.
- **A failed load** stands as FAILED with a detail for operators. It is tried again by the next
  use, or by the sweeper, but not before a pause that doubles from 5 s to 10 min; an operator's
  `load_model` does not wait. A model that dies while it serves (`failure`) is treated alike.
- **Idle models leave** `keep_alive` after their last use: the service's setting, or the
  catalogue entry's `keep_alive_seconds`. `Lifecycle.run` looks once a second.
- **A memory budget** bounds the sum of what loaded models hold (`ModelEntry.memory_mib`; else
  what the last load took; else the size of the weight files). A load that does not fit evicts
  the least recently used idle models, of any engine. A busy model is never evicted: the load
  waits for some time, in order of arrival, and is then refused as `Overloaded`. What is larger
  than the whole budget is refused at once. Loading at start evicts nothing.
- **One model moves at a time** in a process: so what a load takes can be measured, and two
  loads never share the room that only one of them fits in. Requests on loaded models go on.

The package is plain Python: engines use it without gRPC or settings.
"""

from atrium_common.lifecycle.handling import ModelHandling
from atrium_common.lifecycle.host import ModelHost
from atrium_common.lifecycle.lifecycle import Lifecycle
from atrium_common.lifecycle.memory import (
    device_bytes,
    expected_bytes,
    limit_arenas,
    release_memory,
)
from atrium_common.lifecycle.policy import LifecyclePolicy, models_at_start
from atrium_common.lifecycle.record import ModelRecord
from atrium_common.lifecycle.weightless import weightless_host

__all__ = [
    "Lifecycle",
    "LifecyclePolicy",
    "ModelHandling",
    "ModelHost",
    "ModelRecord",
    "device_bytes",
    "expected_bytes",
    "limit_arenas",
    "models_at_start",
    "release_memory",
    "weightless_host",
]
