"""The parts of the transformers engine, from the tensor outwards.

attention.py  one sequence's keys and values; attention over a packed batch
sampler.py    from logits to tokens, per request
sequence.py   one choice and one request as the loop sees them
scheduler.py  who takes part in the next step
loop.py       the engine thread: schedule, forward, sample, hand over
chat.py       prompts: chat templates, token ids, refusals by name
generator.py  one loaded chat model
embedder.py   one loaded embedding model
"""
