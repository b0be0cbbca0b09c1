"""Tiny image-text-to-text models with random weights, in the layout of the model hub.

The tests of `engines/vlm.py` load them by the same path as real ones: three families whose
pictures travel in three ways (LLaVA: one square; Qwen2.5-VL: a list of patches; Idefics3 and
SmolVLM: a varying number of tiles). They say nonsense in bytes, the same every time.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

WINDOW = 512
"""Tokens that each of them reads and writes."""

_SEED = 3
_LIVELIER = 4.0
"""Weights are this many times larger than the initialiser's, so that answers differ."""

# What these families' own templates come to for text and pictures.
_LLAVA_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
    "{% for part in m['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in m['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
_QWEN_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_IDEFICS_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>' }}{% endif %}"
    "{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
DEAF_TEMPLATE = (
    "{% for m in messages if m['role'] == 'user' %}"
    "{% for part in m['content'] %}{{ part['text'] if part['type'] == 'text' else '<image>' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ ' Answer:' }}{% endif %}"
)
"""A template, for LLaVA, that leaves out everything but the user's questions."""

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": WINDOW,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def write_llava(folder: Path, *, template: str = _LLAVA_TEMPLATE) -> None:
    """Writes a LLaVA: 28 x 28 pixels in 4 patches."""
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = _tokenizer(folder, template, special, ["<image>"])
    config = LlavaConfig(
        vision_config={
            **_VISION,
            "model_type": "clip_vision_model",
            "image_size": 28,
            "patch_size": 14,
        },
        text_config={**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_index=_id(tokenizer, "<image>"),
        image_seq_length=4,
    )
    _write_model(folder, lambda: LlavaForConditionalGeneration(config), tokenizer)
    size = {"height": 28, "width": 28}
    pictures = {"image_processor_type": "CLIPImageProcessor", "crop_size": size}
    _write(folder, "preprocessor_config.json", {**pictures, "size": {"shortest_edge": 28}})
    processor = {"processor_class": "LlavaProcessor", "patch_size": 14}
    strategy = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    _write(folder, "processor_config.json", {**processor, **strategy})


def write_qwen(folder: Path) -> None:
    """Writes a Qwen2.5-VL: a token for each 28 x 28 pixels, at most 16 of them."""
    media = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = _tokenizer(folder, _QWEN_TEMPLATE, special, ["<|im_start|>", *media])
    start, end, image, video = (_id(tokenizer, token) for token in media)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    ends = {"bos_token_id": None, "eos_token_id": _id(tokenizer, "<|im_end|>")}
    config = Qwen2_5_VLConfig(
        text_config={**_TEXT, **ends, "vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
    )
    _write_model(folder, lambda: Qwen2_5_VLForConditionalGeneration(config), tokenizer)
    pictures = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 28 * 28,
        "max_pixels": 28 * 28 * 16,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    _write(folder, "preprocessor_config.json", pictures)


def write_idefics(folder: Path) -> None:
    """Writes an Idefics3: up to 4 tiles of 32 x 32 pixels beside the whole, 4 tokens each."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    special = {
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "pad_token": "<|endoftext|>",
    }
    more = ["<image>", "<fake_token_around_image>", "<global-img>", *places]
    tokenizer = _tokenizer(folder, _IDEFICS_TEMPLATE, special, more)
    config = Idefics3Config(
        text_config={**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={**_VISION, "image_size": 32, "patch_size": 8},
        scale_factor=2,
        image_token_id=_id(tokenizer, "<image>"),
    )
    _write_model(folder, lambda: Idefics3ForConditionalGeneration(config), tokenizer)
    pictures = {
        "image_processor_type": "Idefics3ImageProcessor",
        "do_image_splitting": True,
        "max_image_size": {"longest_edge": 32},
        "size": {"longest_edge": 64},
    }
    _write(folder, "preprocessor_config.json", pictures)
    processor = {"processor_class": "Idefics3Processor", "image_seq_len": 4}
    _write(folder, "processor_config.json", processor)


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "llava": write_llava,
    "qwen": write_qwen,
    "idefics": write_idefics,
}
"""The families."""


def _tokenizer(
    folder: Path, template: str, special: Mapping[str, str], more: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Writes a tokenizer of printable ASCII, a character a token, and special tokens.

    Args:
        folder: Where.
        template: The chat template.
        special: Tokens with a role, e.g. ``eos_token``.
        more: Further ones.
    """
    characters = ["\u010a", "\u0120", *map(chr, range(0x21, 0x7F))]  # how it writes \n and space
    raw = Tokenizer(models.BPE({symbol: at for at, symbol in enumerate(characters)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw, extra_special_tokens=list(more), **special
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    number = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(number, int)  # noqa: S101 - narrows for the type checker
    return number


def _write_model(
    folder: Path, make: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(_LIVELIER)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)


def _write(folder: Path, name: str, content: Mapping[str, object]) -> None:
    (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
