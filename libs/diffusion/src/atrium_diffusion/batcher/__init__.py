"""Step batching: requests for pictures share each denoising step, not a place in a queue.

**Why.** A picture is made by calling one network, the UNet, some 4 to 150 times. A server
that runs a whole request at a time makes a 4-step draft wait behind a 50-step print, keeps
the device busy for a client that left, and leaves most of it idle where a batch is small.
Language-model servers solved the same with continuous batching: requests join and leave
the batch between two steps. Diffusion allows it too, because nothing in a UNet call ties
its rows together: each row has a timestep and a conditioning of its own. What differs
between requests (steps, guidance, seed, scheduler, strength, mask) lives outside of it.

**The algorithm.** One thread per model repeats a *tick*:

1. *Collect.* Take in new requests, drop the cancelled.
2. *Choose* who takes a step (`order.py`): a group, the pictures that can share a UNet call
   (of one size, with the same adapters), and as many of it as the budget allows
   (`budget.py`).
3. *Begin* those that are new: encode the prompt, draw the first noise. Few per tick, for
   the others wait.
4. *Gather.* Each picture's scheduler prepares its latents; the rows are concatenated, with
   a second row for each picture with guidance, and a timestep for every row.
5. *Predict.* One UNet call.
6. *Scatter.* Each picture applies its guidance, steps its own scheduler with its own
   generator, and blends with its source under a mask.
7. *Finish.* Previews; pictures that took their last step are decoded together; readers
   are told.

State lives in the pictures (`canvas.py`); between ticks the batch does not exist. So to
join, to leave, to be passed over for a tick or to be batched with others next time needs
no code at all, and a picture can be compared with the one that diffusers' own pipeline
draws alone: they are equal within one grey level (kernels add up differently in batches
of different sizes). A deterministic request is its own group: always alone, always the
same bytes.

**Fairness.** Between tenants, start-time fair queueing by weight, charged with the
pixel-steps that were served; within a tenant by priority, then fewest remaining
pixel-steps. From that follow, and tests hold:

- A tenant who comes new leads the next tick, whatever others have in line and of whatever
  size (of several newcomers, one after the other). Its first step is over two ticks after
  it came at the latest: the one that was under way and its own.
- A tenant's own short job takes its tenant's next turn, before the long ones. But where
  the tenant's oldest picture was passed over, one turn in nine is that one's: none starves.
- Of tenants that always have enough in line to fill a batch, each gets pixel-steps in
  proportion to its weight, within one batch.
- A cancelled request costs at most the step that was under way.

**Cost.** With P pictures in line a tick chooses in O(P log P) comparisons: some 50
microseconds for 64 pictures of 4 tenants, beside a UNet call of tens of milliseconds. All
else that is not the UNet takes about as long as in diffusers' own loop. The device is
waited for once per tick. A waiting picture that has begun holds its latents and its share
of cached conditionings, less than a megabyte; one that has not holds nothing on the
device.

**Failures** stay with their request (`ticker.py`). Where memory runs out, half of the
batch takes the same step at once, the others at the next tick, and the batch stays small
for a while; a picture that does not even fit alone fails as `Overloaded`. Only a lost
device ends the thread.

The files, from the idea to the machine:

    order.py     StepOrder: who takes the next step; no clock, no torch
    budget.py    BatchLimits and Budget: how many fit
    canvas.py    Canvas: what the device holds of a picture
    denoiser.py  Denoiser: begin, predict, advance, decode; over the `DiffusionModel` port
    ticker.py    Ticker: one tick, and whom a failure concerns
    request.py   Request and Picture; mailbox.py: events on the way to a reader
    loop.py      DenoisingLoop: the thread
    batcher.py   StepBatcher: the face on the event loop
"""

from atrium_diffusion.batcher.batcher import StepBatcher
from atrium_diffusion.batcher.budget import BatchLimits

__all__ = ["BatchLimits", "StepBatcher"]
