"""Text from pictures by transformers: what the engines `blip2` and `vlm` share.

model.py     the port: what a family of models knows
engine.py    a registry engine over such models: states, loading, jobs
captioner.py one loaded model: from a job to its events
plan.py      what a request's sampling comes to
loop.py      the thread: who is in the next batch, what happens when memory runs out
gathering.py how long a batch that is not full waits
request.py   a request, its rows, its mailbox
batch.py     one run of `generate` over rows of strangers
beams.py     one run of beam search
choosing.py  from logits to each row's next token
text.py      from tokens to text that is whole
loading.py   devices, numeric types and 8 bits
"""
