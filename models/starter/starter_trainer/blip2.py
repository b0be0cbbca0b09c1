"""BLIP-2 at toy width: the classes and the wiring of BLIP-2 with OPT, few channels.

The recipe in `captions.py` builds it here, and has it saved.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AddedToken,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    GPT2Tokenizer,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from starter_trainer.folder import readable

PAD, MARK, IMAGE = "<pad>", "</s>", "<image>"
"""OPT's mark both begins and ends a text."""
_MOST_PIECES = 1000
_DEVIATION, _QUERY_DEVIATION = 0.05, 0.5
"""Of weights and queries at the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """How large the network is; the defaults make 3.7 MB in single precision.

    Attributes:
        side: Pixels of the square pictures that it sees.
        patch: Pixels of a patch's side.
        width: Of the vision model, the Q-Former and the language model, a multiple of 4.
        vision_layers: Of the vision model.
        qformer_layers: Of the Q-Former; each looks at the picture.
        text_layers: Of the language model.
        queries: What the picture is summed up in, for the language model to read.
        window: Tokens, the queries included.
    """

    side: int = 64
    patch: int = 8
    width: int = 96
    vision_layers: int = 3
    qformer_layers: int = 2
    text_layers: int = 3
    queries: int = 8
    window: int = 128


def make_tokenizer(corpus: Iterable[str]) -> GPT2Tokenizer:
    """OPT's kind of tokenizer: bytes, joined until each word of the corpus is one piece."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_MOST_PIECES,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[PAD, MARK],
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    learnt = json.loads(learner.to_str())["model"]
    tokenizer = GPT2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],  # type: ignore[misc]  # pairs, in truth
        bos_token=MARK,
        eos_token=MARK,
        unk_token=MARK,
        pad_token=PAD,
        padding_side="left",
        add_bos_token=True,
    )
    tokenizer.add_tokens([AddedToken(IMAGE, normalized=False, special=True)], special_tokens=True)
    return tokenizer


def processor(widths: Widths, tokenizer: GPT2Tokenizer) -> Blip2Processor:
    """Scales pictures to the network's size and its levels to -1 to 1, and places the queries."""
    pictures = BlipImageProcessorPil(
        size={"height": widths.side, "width": widths.side},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    made: Blip2Processor = Blip2Processor(  # type: ignore[no-untyped-call]
        pictures, tokenizer, num_query_tokens=widths.queries
    )
    return made


def network(widths: Widths, tokenizer: GPT2Tokenizer) -> Blip2ForConditionalGeneration:
    """A fresh network.

    BLIP-2 starts from parts that are already trained, so its own configuration starts the
    vision model and the queries at zero: from there nothing tells one query from another.
    They start at random here, and nothing is dropped out, for no picture comes twice.
    """
    common = {
        "hidden_size": widths.width,
        "num_attention_heads": 4,
        "initializer_range": _DEVIATION,
    }
    config = Blip2Config(
        vision_config={
            **common,
            "image_size": widths.side,
            "patch_size": widths.patch,
            "intermediate_size": 3 * widths.width,
            "num_hidden_layers": widths.vision_layers,
        },
        qformer_config={
            **common,
            "vocab_size": len(tokenizer),
            "encoder_hidden_size": widths.width,
            "intermediate_size": 3 * widths.width,
            "num_hidden_layers": widths.qformer_layers,
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": widths.window,
        },
        text_config={
            "model_type": "opt",
            "hidden_size": widths.width,
            "word_embed_proj_dim": widths.width,
            "num_attention_heads": 4,
            "ffn_dim": 3 * widths.width,
            "num_hidden_layers": widths.text_layers,
            "dropout": 0.0,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": widths.window,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        num_query_tokens=widths.queries,
        image_token_index=tokenizer.get_vocab()[IMAGE],
    )
    model = Blip2ForConditionalGeneration(config)
    nn.init.normal_(model.query_tokens, std=_QUERY_DEVIATION)
    return model


def save(folder: Path, *, model: Blip2ForConditionalGeneration, processor: Blip2Processor) -> None:
    """Writes what `Blip2ForConditionalGeneration` and `Blip2Processor` load, readable for all."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    readable(folder)
