"""Makes XTTS checkpoints with random weights, for tests and measurements without the real ones.

The files are those of XTTS-v2: config.json, model.pth (with a pickled configuration in it,
as the published one has), vocab.json and speakers_xtts.pth, so the engine takes the same way
through the library. The tests of the engine call `make`; so does a measurement, with `FULL`.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from TTS.tts.configs.xtts_config import XttsArgs, XttsAudioConfig, XttsConfig
from TTS.tts.models.xtts import Xtts, _legacy_safe_globals

from atrium_tts.engines.xtts_text import LANGUAGES
from atrium_tts.engines.xtts_voices import SPEAKERS

_LANGUAGES = [{"zh": "zh-cn"}.get(name, name) for name in LANGUAGES]
_SPECIAL = ("[STOP]", "[UNK]", "[SPACE]", "[START]", *(f"[{tag}]" for tag in _LANGUAGES))
_CHARACTERS = "!'(),-.:;?" + "".join(map(chr, range(ord("a"), ord("z") + 1))) + "äöüßñéèêçàáíóú"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """Size of the model.

    Attributes:
        layers: Transformer layers.
        width: Channels of the transformer.
        heads: Attention heads; each has at least 32 channels.
        audio_tokens: Positions of audio, each 1024 samples at 22,050 Hz.
    """

    layers: int
    width: int
    heads: int
    audio_tokens: int


TINY = Dimensions(layers=2, width=64, heads=2, audio_tokens=18)
"""93 MB, nearly all of it the vocoder, of full size; says at most 0.7 s at once."""

FULL = Dimensions(layers=30, width=1024, heads=16, audio_tokens=605)
"""XTTS-v2's own; 1.9 GB."""


def make(folder: Path, *, dimensions: Dimensions = TINY, seed: int = 0) -> Path:
    """Writes a checkpoint; the same seed makes the same weights.

    Args:
        folder: Where the four files go; it is created.
        dimensions: Size of the model.
        seed: Decides the weights.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True)
    vocabulary = folder / "vocab.json"
    _tokenizer().save(str(vocabulary))
    config = _config(dimensions)
    config.save_json(str(folder / "config.json"))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = Xtts(_with_vocabulary(config, vocabulary))
        _save(model, config, folder / "model.pth")
        torch.save(_speakers(dimensions), folder / "speakers_xtts.pth")
    return folder


def _tokenizer() -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *_CHARACTERS))}
    tokenizer = Tokenizer(BPE(vocabulary, [], unk_token="[UNK]"))  # noqa: S106
    tokenizer.add_special_tokens(list(_SPECIAL))
    return tokenizer


def _config(dimensions: Dimensions) -> XttsConfig:
    return XttsConfig(
        model_args=XttsArgs(
            gpt_layers=dimensions.layers,
            gpt_n_model_channels=dimensions.width,
            gpt_n_heads=dimensions.heads,
            gpt_max_audio_tokens=dimensions.audio_tokens,
            gpt_num_audio_tokens=1026,
            gpt_start_audio_token=1024,
            gpt_stop_audio_token=1025,
            gpt_use_perceiver_resampler=True,
            decoder_input_dim=dimensions.width,
        ),
        audio=XttsAudioConfig(),
        languages=list(_LANGUAGES),
        temperature=0.75,
        repetition_penalty=5.0,
        gpt_cond_len=30,
        gpt_cond_chunk_len=4,
        max_ref_len=30,
    )


def _with_vocabulary(config: XttsConfig, vocabulary: Path) -> XttsConfig:
    """Returns a copy whose transformer is made at once, and not when a checkpoint is loaded."""
    tokens: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))["model"]["vocab"]
    copy = XttsConfig()
    copy.from_dict(config.to_dict())
    copy.model_args.gpt_number_text_tokens = len(tokens)
    copy.model_args.gpt_start_text_token = tokens["[START]"]
    copy.model_args.gpt_stop_text_token = tokens["[STOP]"]
    return copy


def _save(model: Xtts, config: XttsConfig, path: Path) -> None:
    # The published file holds its configuration as objects of classes that have since moved.
    with _legacy_safe_globals():
        torch.save({"config": config, "model": model.state_dict()}, path)


def _speakers(dimensions: Dimensions) -> dict[str, dict[str, torch.Tensor]]:
    return {
        speaker.name: {
            "gpt_cond_latent": torch.randn(1, 32, dimensions.width),
            "speaker_embedding": torch.nn.functional.normalize(torch.randn(1, 512, 1), dim=1),
        }
        for speaker in SPEAKERS
    }
