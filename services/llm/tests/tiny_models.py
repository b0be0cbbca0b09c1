"""A tiny random chat model, so that the loop is tested in milliseconds per step."""

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from atrium_common.catalogue import FolderSource, ModelEntry
from atrium_common.domain import Capability

TINY = "tiny"
PLAIN = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
)
HERMES = (
    '{% if tools %}{{ tools | tojson }} <tool_call>\n{"name": n, "arguments": a}\n</tool_call>'
    "{% endif %}" + PLAIN
)


def make_tiny(folder: Path, *, template: str = PLAIN) -> None:
    """Writes a byte-level model: 256 bytes and two special tokens, random weights."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(alphabet)}
    raw = Tokenizer(models.BPE(vocabulary, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # livelier than the initializer, so that answers differ
        for parameter in model.parameters():
            parameter.mul_(3.0)
    model.save_pretrained(folder)


def tiny_entry(folder: Path, options: Mapping[str, int] | None = None) -> ModelEntry:
    """Makes the catalogue entry of a tiny model."""
    return ModelEntry(
        id=TINY,
        service="llm",
        capabilities=(Capability.CHAT, Capability.COMPLETION),
        engine="transformers",
        options=dict(options or {}),
        sources=(FolderSource(kind="folder", path=folder),),
    )
