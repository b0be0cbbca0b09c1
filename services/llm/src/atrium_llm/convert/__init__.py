"""Protobuf <-> domain, and validation: every field is honoured or refused by name.

The servicer calls these; beside it, nothing else in the service touches protobuf.
"""

from atrium_llm.convert.bounds import (
    embedding_bound,
    generation_bound,
    rerank_bound,
)
from atrium_llm.convert.replies import (
    AnswerBuilder,
    delta_to_proto,
    embeddings_to_proto,
    ranking_to_proto,
)
from atrium_llm.convert.requests import (
    embedding_job,
    generation_job,
    input_capability,
    min_interval,
    prompt_to_count,
    rerank_job,
)

__all__ = [
    "AnswerBuilder",
    "delta_to_proto",
    "embedding_bound",
    "embedding_job",
    "embeddings_to_proto",
    "generation_bound",
    "generation_job",
    "input_capability",
    "min_interval",
    "prompt_to_count",
    "ranking_to_proto",
    "rerank_bound",
    "rerank_job",
]
