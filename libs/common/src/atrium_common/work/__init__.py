"""Who works when: the bounded, fair queue in front of an engine, and the engine's thread.

A servicer enters the `WorkQueue` before it touches its engine; a serial engine runs its
model on a `DeviceThread`, a batching one on a `BatchingLoop` if it brings no thread of its
own. The files, from the idea to the machine:

    scheduling.py  Serial and Batching: what an engine says about itself
    fair.py        FairOrder: who is next (start-time fair queueing; no clock, no asyncio)
    forecast.py    Forecast: how long things take, so that hopeless work is refused at once
    queue.py       WorkQueue and Ticket: slots, waiting, cancellation, deadlines
    device.py      DeviceThread and CancelToken: blocking model code, one thread per device
    batching.py    BatchingLoop: the thread of an engine that batches step by step
"""

from atrium_common.work.batching import BatchingLoop
from atrium_common.work.device import CancelToken, DeviceThread
from atrium_common.work.queue import Ticket, WorkQueue
from atrium_common.work.scheduling import Batching, Serial

__all__ = [
    "Batching",
    "BatchingLoop",
    "CancelToken",
    "DeviceThread",
    "Serial",
    "Ticket",
    "WorkQueue",
]
