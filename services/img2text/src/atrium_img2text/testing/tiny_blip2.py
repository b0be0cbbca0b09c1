"""Makes BLIP-2 checkpoints with random weights, for tests and measurements without real ones.

The files are those of Salesforce/blip2-opt-2.7b and Salesforce/blip2-flan-t5-xl: the same
names, configuration keys, special tokens and tensor names, so that an engine takes the same
way through the library. Tests call `make`; so does a measurement, with `FULL`.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AddedToken,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessorPil,
    GPT2Tokenizer,
    OPTConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5Tokenizer,
)

Family = Literal["opt", "t5"]

_SENTENCES = (
    "a photo of a red circle and two blue squares",
    "Question: how many green stars are there? Answer: three.",
    "what do you see? the small yellow triangle on the left is round",
)
_IMAGE = "<image>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """Sizes of a checkpoint; the text model's are OPT's names, T5 takes them as its own.

    Attributes:
        image: Side of the pictures that it sees, a multiple of `patch`.
        vocabulary: Tokens of the text model at least; ``0`` as many as the tokenizer has.
    """

    image: int
    patch: int
    queries: int
    vision_width: int
    vision_feed: int
    vision_layers: int
    vision_heads: int
    qformer_width: int
    qformer_layers: int
    qformer_heads: int
    text_width: int
    text_layers: int
    text_feed: int
    text_heads: int
    positions: int = 2048
    vocabulary: int = 0


TINY = Dimensions(
    image=28,
    patch=14,
    queries=4,
    vision_width=32,
    vision_feed=64,
    vision_layers=2,
    vision_heads=4,
    qformer_width=32,
    qformer_layers=2,
    qformer_heads=4,
    text_width=32,
    text_layers=2,
    text_feed=64,
    text_heads=4,
)
"""Steps of milliseconds."""

FULL = Dimensions(
    image=224,
    patch=14,
    queries=32,
    vision_width=1408,
    vision_feed=6144,
    vision_layers=39,
    vision_heads=16,
    qformer_width=768,
    qformer_layers=12,
    qformer_heads=12,
    text_width=2560,
    text_layers=32,
    text_feed=10240,
    text_heads=32,
    vocabulary=50304,
)
"""Of Salesforce/blip2-opt-2.7b: 3,744,761,856 parameters, as its published files hold."""


def make(
    folder: Path,
    family: Family = "opt",
    *,
    dimensions: Dimensions = TINY,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Writes a complete checkpoint; the same seed makes the same weights.

    Its texts are words in no order, different for different pictures, and they hardly ever
    end before they have to.

    Args:
        folder: Where it goes; it is created.
        family: Of the text model.
        dimensions: Size of the model.
        dtype: Of the tensors in the file.
        seed: Decides the weights.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True)
    tokenizer = _opt_tokenizer() if family == "opt" else _t5_tokenizer()
    tokenizer.add_tokens([AddedToken(_IMAGE, normalized=False, special=True)], special_tokens=True)
    tokenizer.save_pretrained(folder)
    config = _config(family, tokenizer, dimensions)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Blip2ForConditionalGeneration(config)
        _enliven(model, tokenizer)
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    model.save_pretrained(folder)
    _write_processor(folder, dimensions)
    return folder


def _config(
    family: Family, tokenizer: PreTrainedTokenizerBase, dimensions: Dimensions
) -> Blip2Config:
    vocabulary = max(len(tokenizer), dimensions.vocabulary)
    text = _opt(vocabulary, dimensions) if family == "opt" else _t5(vocabulary, dimensions)
    return Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=dimensions.vision_width,
            intermediate_size=dimensions.vision_feed,
            num_hidden_layers=dimensions.vision_layers,
            num_attention_heads=dimensions.vision_heads,
            image_size=dimensions.image,
            patch_size=dimensions.patch,
        ),
        qformer_config=Blip2QFormerConfig(
            hidden_size=dimensions.qformer_width,
            num_hidden_layers=dimensions.qformer_layers,
            num_attention_heads=dimensions.qformer_heads,
            intermediate_size=dimensions.qformer_width * 4,
            encoder_hidden_size=dimensions.vision_width,
        ),
        text_config=text,
        num_query_tokens=dimensions.queries,
        image_token_index=len(tokenizer) - 1,  # <image> was added last
    )


def _opt(vocabulary: int, dimensions: Dimensions) -> OPTConfig:
    """As in blip2-opt-2.7b, where a line's end also ends a text."""
    return OPTConfig(
        vocab_size=vocabulary,
        hidden_size=dimensions.text_width,
        ffn_dim=dimensions.text_feed,
        num_hidden_layers=dimensions.text_layers,
        num_attention_heads=dimensions.text_heads,
        word_embed_proj_dim=dimensions.text_width,
        max_position_embeddings=dimensions.positions,
        dropout=0.0,
        eos_token_id=2 if vocabulary < 50119 else 50118,
    )


def _t5(vocabulary: int, dimensions: Dimensions) -> T5Config:
    """As in blip2-flan-t5-xl."""
    options: dict[str, Any] = {"tie_word_embeddings": False, "decoder_start_token_id": 0}
    return T5Config(
        vocab_size=vocabulary,
        d_model=dimensions.text_width,
        d_kv=dimensions.text_width // dimensions.text_heads,
        d_ff=dimensions.text_feed,
        num_layers=dimensions.text_layers,
        num_heads=dimensions.text_heads,
        feed_forward_proj="gated-gelu",
        **options,
    )


def _enliven(model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
    """Draws weights that answer different pictures differently, in words, and seldom end."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=1.5 / math.sqrt(parameter.shape[-1]))
    words = model.language_model.get_output_embeddings().weight
    for token, number in tokenizer.get_vocab().items():
        if len(token) < 3 or number in tokenizer.all_special_ids:
            words[number] = 0.0


def _opt_tokenizer() -> PreTrainedTokenizerBase:
    """Byte pairs, with OPT's special tokens at OPT's places."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(_SENTENCES, trainer)
    learnt = json.loads(raw.to_str())["model"]
    return GPT2Tokenizer(
        vocab=learnt["vocab"],
        merges=cast(list[str], [tuple(pair) for pair in learnt["merges"]]),
        bos_token="</s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
    )


def _t5_tokenizer() -> PreTrainedTokenizerBase:
    """Words and letters as a unigram model, with T5's special tokens at T5's places."""
    words = sorted({word for sentence in _SENTENCES for word in sentence.split()})
    letters = sorted({letter for word in words for letter in word})
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    vocabulary += [(f"\u2581{word}", -2.0) for word in words]
    vocabulary += [(letter, -6.0) for letter in letters]
    return T5Tokenizer(vocab=vocabulary)


def _write_processor(folder: Path, dimensions: Dimensions) -> None:
    side = {"height": dimensions.image, "width": dimensions.image}
    BlipImageProcessorPil(size=side).save_pretrained(folder)
    told = {"num_query_tokens": dimensions.queries, "processor_class": "Blip2Processor"}
    (folder / "processor_config.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
