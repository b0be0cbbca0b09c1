"""The parts of the transformers engine, from the tensor outwards.

attention.py   one sequence's keys and values; attention over a packed batch
vocabulary.py  the bytes of each token
sequence.py    one choice and one request as the loop sees them
sampler.py     from logits to tokens, per request
writer.py      from a token to text, tool calls and the reason to end
scheduler.py   who takes part in the next step
batch.py       the input of one forward
loop.py        the engine thread: schedule, forward, sample, hand over
chat.py        prompts: chat templates, token ids, refusals by name
options.py     what a catalogue entry may set
generator.py   one loaded chat model
embedder.py    one loaded embedding model
"""
