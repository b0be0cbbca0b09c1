"""Makes tiny random Whisper models of any shape, in CTranslate2's format.

They say nonsense, but every path that the real models of that shape take runs on them:
128 mels and 51,866 tokens is large-v3, 80 and 51,864 an English-only model. Used by the
fixtures in `conftest.py`.
"""

import json
import warnings
from pathlib import Path
from typing import Any

_FIRST_AFTER_LANGUAGES = 50358
_YUE = "<|yue|>"
_LAYERS, _HEADS, _WIDTH = 2, 2, 64


def make(folder: Path, *, tokenizer_json: Path, mels: int, vocabulary: int) -> Path:
    """Writes a model to `folder` and returns it.

    Args:
        folder: Must not exist yet.
        tokenizer_json: Of a multilingual Whisper with 99 languages.
        mels: Mel bands, 80 or 128.
        vocabulary: 51,865; 51,866 with Cantonese as large-v3 has it; or 51,864 as the
            English-only models have it.
    """
    import torch
    from ctranslate2.converters import TransformersConverter
    from transformers import (  # type: ignore[attr-defined]
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizerFast,
    )

    source = folder.with_name(folder.name + "-source")
    source.mkdir(parents=True)
    tokens = _tokenizer(tokenizer_json, vocabulary=vocabulary)
    (source / "tokenizer.json").write_text(json.dumps(tokens), encoding="utf-8")
    ids = {token["content"]: token["id"] for token in tokens["added_tokens"]}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    torch.manual_seed(7)
    config = WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=mels,
        d_model=_WIDTH,
        encoder_layers=_LAYERS,
        decoder_layers=_LAYERS,
        encoder_attention_heads=_HEADS,
        decoder_attention_heads=_HEADS,
        encoder_ffn_dim=2 * _WIDTH,
        decoder_ffn_dim=2 * _WIDTH,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
    )
    model = WhisperForConditionalGeneration(config)
    settings: Any = model.generation_config
    settings._from_model_config = False
    settings.bos_token_id = settings.eos_token_id = settings.pad_token_id = end
    settings.decoder_start_token_id = start
    settings.suppress_tokens, settings.begin_suppress_tokens = [], [220, end]
    settings.lang_to_id = {
        name: number for name, number in ids.items() if start < number < ids["<|translate|>"]
    }
    settings.alignment_heads = [[1, 0], [1, 1]]
    model.save_pretrained(source)
    WhisperTokenizerFast(tokenizer_file=str(source / "tokenizer.json")).save_pretrained(source)
    WhisperFeatureExtractor(feature_size=mels).save_pretrained(source)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TransformersConverter(
            str(source), copy_files=["tokenizer.json", "preprocessor_config.json"]
        ).convert(str(folder), quantization="int8")
    # The converter's own vocabulary is fine; its tokenizer must be the one made above.
    (folder / "tokenizer.json").write_text(json.dumps(tokens), encoding="utf-8")
    return folder


def _tokenizer(path: Path, *, vocabulary: int) -> dict[str, Any]:
    tokens: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if vocabulary == 51864:
        # CTranslate2 takes a model for multilingual if this entry is in its vocabulary:
        # the English-only ones lack it, which is why their special tokens come one earlier.
        number = tokens["model"]["vocab"].pop("")
        for token in tokens["added_tokens"]:
            token["id"] -= token["id"] > number
        for special in tokens["post_processor"]["special_tokens"].values():
            special["ids"] = [each - (each > number) for each in special["ids"]]
    if vocabulary == 51866:
        for token in tokens["added_tokens"]:
            token["id"] += token["id"] >= _FIRST_AFTER_LANGUAGES
        place = next(
            i for i, t in enumerate(tokens["added_tokens"]) if t["id"] > _FIRST_AFTER_LANGUAGES
        )
        yue = tokens["added_tokens"][place] | {"id": _FIRST_AFTER_LANGUAGES, "content": _YUE}
        tokens["added_tokens"].insert(place, yue)
        tokens["post_processor"]["special_tokens"]["<|notimestamps|>"]["ids"] = [50364]
    return tokens
