"""The first use of a GGUF file beside weights that nothing may be written to, as in compose."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from atrium_common.catalogue import FolderSource, ModelEntry
from atrium_common.domain import Capability
from atrium_common.weights import WeightsError, WeightStore
from atrium_llm.weights import convert_gguf, model_folder

WIDTH, HIDDEN, HEADS, KEY_HEADS = 32, 64, 4, 2
TEMPLATE = "{{ messages[0]['content'] }}<|end|>"


def write_gguf(file: Path) -> np.ndarray:
    """Writes a quantised model of one layer, tokenizer inside; returns its embeddings."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "<|end|>"]
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_chat_template(TEMPLATE)
    keys = WIDTH * KEY_HEADS // HEADS
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (keys, WIDTH),
        "blk.0.attn_v": (keys, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_gate": (HIDDEN, WIDTH),
        "blk.0.ffn_up": (HIDDEN, WIDTH),
        "blk.0.ffn_down": (WIDTH, HIDDEN),
    }
    random = np.random.default_rng(1)
    values = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, value in values.items():
        writer.add_tensor(f"{name}.weight", gguf.quantize(value, kind), raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values["token_embd"]


def entry_in(folder: Path) -> ModelEntry:
    return ModelEntry(
        id="tiny-gguf",
        service="llm",
        capabilities=(Capability.CHAT,),
        engine="transformers",
        sources=(FolderSource(kind="folder", path=folder),),
    )


def state_of(folder: Path) -> dict[str, int]:
    """Every path below a folder, and when it changed: a folder does with each new name in it."""
    return {str(path): path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_a_gguf_file_is_converted_into_the_cache_once(tmp_path: Path) -> None:
    models, cache = tmp_path / "models", tmp_path / "data" / "models"
    weights = models / "tiny"
    weights.mkdir(parents=True)
    embeddings = write_gguf(weights / "tiny.gguf")
    store, entry = WeightStore(models, cache=cache), entry_in(weights)
    before = state_of(models)

    folder = model_folder(store, entry, convert=convert_gguf)
    assert folder.is_relative_to(cache)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    loaded = model.get_input_embeddings().weight.detach().float().numpy()
    # An eighth bit of the largest value of each 32, and bf16's own rounding.
    assert np.abs(loaded - embeddings).max() < np.abs(embeddings).max() / 100
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = [{"role": "user", "content": "hello"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False)
    assert text == "hello<|end|>"
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"
    assert tokenizer.encode("<|end|>")[-1] == model.config.eos_token_id

    def never(file: Path, target: Path) -> None:
        raise AssertionError(f"{file} is converted again")

    again = WeightStore(models, cache=cache)
    assert model_folder(again, entry, convert=never) == folder
    assert state_of(models) == before


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    weights, cache = tmp_path / "weights", tmp_path / "cache"
    weights.mkdir()
    store, entry = WeightStore(tmp_path / "models", cache=cache), entry_in(weights)
    with pytest.raises(WeightsError, match="neither safetensors nor one GGUF file"):
        model_folder(store, entry)
    (weights / "tiny.gguf").write_bytes(b"cut")

    def fail(file: Path, target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise WeightsError(f"{file.name}: conversion failed")

    with pytest.raises(WeightsError, match=r"tiny\.gguf: conversion failed"):
        model_folder(store, entry, convert=fail)

    def refuse(file: Path, target: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(target))

    with pytest.raises(WeightsError, match=r"is read-only: .* with ATRIUM_CACHE_DIR"):
        model_folder(store, entry, convert=refuse)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_conversion_ends_with_who_wanted_it(tmp_path: Path) -> None:
    """What it would read never comes, so that only the end of its parent ends it."""
    os.mkfifo(tmp_path / "tiny.gguf")
    command = [sys.executable, "-m", "atrium_llm.weights", str(tmp_path / "tiny.gguf"), "made"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(60) == 1
