"""Loads the processor of an image-text-to-text model from a folder, for `engines/vlm_model.py`.

The library's own loader also makes what reads videos, and for that it needs torchvision;
there are no videos here. Pictures are always prepared by Pillow and numpy, so that the same
picture gives the same numbers on every machine.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files that may name the processor's class, the one that wins first."""


def load_processor(folder: Path) -> ProcessorMixin:
    """Makes a processor out of a model's files; never runs code of theirs.

    Raises:
        ValueError: No processor of the library reads them, or it reads more than pictures
            and text.
        OSError: A file is missing.
    """
    kind = _processor_class(folder)
    parts = [_part(folder, kind, name) for name in kind.get_attributes()]  # type: ignore[no-untyped-call]
    settings, _ = kind.get_processor_dict(folder, local_files_only=True)
    made = _without_videos(kind).from_args_and_dict(parts, settings)
    processor = cast(ProcessorMixin, made)
    # Older folders have the template with the tokenizer alone.
    processor.chat_template = processor.chat_template or tokenizer_of(processor).chat_template
    return processor


def tokenizer_of(processor: ProcessorMixin) -> PreTrainedTokenizerFast:
    """Returns a processor's tokenizer."""
    return cast(PreTrainedTokenizerFast, processor.tokenizer)


def reserved_tokens(processor: ProcessorMixin) -> frozenset[int]:
    """Returns the tokens that only templates and processors may write: control and media."""
    tokenizer = tokenizer_of(processor)
    added = tokenizer.added_tokens_decoder.items()
    control = {number for number, token in added if token.special and token.content.strip()}
    media = (getattr(processor, name, None) for name in ("image_token", "video_token"))
    known = tokenizer.get_vocab()
    return frozenset(control | {known[token] for token in media if token in known})


def _processor_class(folder: Path) -> type[ProcessorMixin]:
    for name in _named_classes(folder):
        kind = getattr(transformers, name, None)
        if isinstance(kind, type) and issubclass(kind, ProcessorMixin):
            return kind
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = PROCESSOR_MAPPING.get(type(config), None)
    if kind is None:
        raise ValueError(f"no processor is known for the model type {config.model_type}")
    return cast("type[ProcessorMixin]", kind)


def _named_classes(folder: Path) -> Iterator[str]:
    for file in (folder / name for name in _FILES):
        if file.is_file():
            name = json.loads(file.read_text(encoding="utf-8")).get("processor_class")
            if isinstance(name, str):
                yield name


def _part(folder: Path, kind: type[ProcessorMixin], name: str) -> Any:
    if name == "tokenizer":
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if name == "image_processor":
        return AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    if name == "video_processor":
        return None
    raise ValueError(f"{kind.__name__} reads more than pictures and text: {name}")


def _without_videos(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """Returns a processor class that bears having no part for videos."""

    def check(self: ProcessorMixin, name: str, argument: object) -> object:
        if name == "video_processor" and argument is None:
            return None
        return kind.check_argument_for_proper_class(self, name, argument)  # type: ignore[no-untyped-call]

    # Named as the original, because the library chooses options by the class's name.
    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
