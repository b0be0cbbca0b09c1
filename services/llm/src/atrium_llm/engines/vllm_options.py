"""What a catalogue entry may set for a vLLM model (its `options`)."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from atrium_common.catalogue import ModelEntry
from atrium_common.engine_options import EngineOptions

NotationName = Literal["auto", "none", "hermes", "mistral", "llama3"]

SET_BY_ATRIUM = frozenset(
    {"model", "tokenizer", "served_model_name", "task", "skip_tokenizer_init"}
)
"""vLLM's arguments that the entry's other fields decide."""


class VllmOptions(EngineOptions):
    """Our own options; every other one is an argument of vLLM's `AsyncEngineArgs`.

    For instance ``gpu_memory_utilization``, ``kv_cache_memory_bytes``, ``max_model_len``,
    ``dtype``, ``quantization``, ``tensor_parallel_size``, ``enforce_eager`` or
    ``runner: pooling``. A name that vLLM does not know stops the engine from loading.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    tool_notation: NotationName = "auto"
    """How the model writes tool calls; ``auto`` reads it off the chat template."""

    max_num_seqs: int = Field(default=64, ge=1)
    """Sequences that are generated at once."""

    def engine_arguments(self) -> dict[str, JsonValue]:
        """Returns what goes to vLLM as it is."""
        return {**(self.model_extra or {}), "max_num_seqs": self.max_num_seqs}


def with_arguments(
    entries: Sequence[ModelEntry], arguments: Mapping[str, JsonValue]
) -> list[ModelEntry]:
    """Returns the entries, those that vLLM runs with these arguments over their own.

    Args:
        entries: Models of any engine.
        arguments: vLLM's by name; ``None`` leaves what the entry says.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    return [
        entry.model_copy(update={"options": {**entry.options, **given}})
        if entry.engine == "vllm"
        else entry
        for entry in entries
    ]
