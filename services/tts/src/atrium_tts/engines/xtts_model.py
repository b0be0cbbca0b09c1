"""One XTTS checkpoint in memory: it speaks and clones, through coqui-tts. Blocking.

`XttsEngine` calls it in its device thread alone: the library's model is not safe to share.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from TTS.tts.configs.xtts_config import XttsConfig
from TTS.tts.models.xtts import Xtts, _legacy_safe_globals

from atrium_common.errors import InvalidArgument
from atrium_common.processors import processors
from atrium_tts.engines.base import Samples
from atrium_tts.engines.xtts_latents import Latents, unpack
from atrium_tts.engines.xtts_options import XttsOptions
from atrium_tts.engines.xtts_recording import check_recording
from atrium_tts.engines.xtts_text import LIMITS, pieces, plain, readings
from atrium_tts.engines.xtts_vocoder import StreamingVocoder

_EMBEDDING = 512
"""Values of a speaker embedding; the library's encoder has no other size."""

_GREEDY = 0.01
"""Below this temperature the likeliest token is as good as certain."""

_FULL_LENGTH = 250
"""Letters that fill the model's longest audio, in most languages."""

_SPARE_TOKENS = 20
"""Audio tokens that the shortest text may take: a second, with its pauses."""


class _SafeXtts(Xtts):  # type: ignore[misc]
    """Reads the weights, and only that."""

    def _load_checkpoint(self, model_path: Path) -> dict[str, torch.Tensor]:
        # The library rewrites a file that holds its configuration as objects, as the
        # published one does; then the digest would no longer be the catalogue's.
        with _legacy_safe_globals():
            loaded = torch.load(model_path, map_location="cpu", weights_only=True, mmap=True)
        weights: dict[str, torch.Tensor] = loaded["model"]
        return weights


class _Stop(StoppingCriteria):
    """Ends a generation at its longest, or when its reader has left."""

    def __init__(self, most: int, left: Callable[[], bool]) -> None:
        self._most = most
        self._left = left

    def __call__(
        self, input_ids: torch.Tensor, scores: object, **options: object
    ) -> torch.BoolTensor:
        """Called after every token."""
        self._most -= 1
        ended = self._most <= 0 or self._left()
        return torch.full((len(input_ids),), ended, device=input_ids.device)  # type: ignore[return-value]


class XttsModel:
    """A loaded checkpoint."""

    def __init__(self, folder: Path, *, options: XttsOptions, device: str, dtype: str) -> None:
        """Loads `config.json`, `model.pth`, `vocab.json` and `speakers_xtts.pth`.

        Pickled files are read by torch's restricted unpickler, which makes tensors and the
        library's own configuration classes and nothing else.

        Args:
            folder: Where the files are; nothing is written there.
            options: Options of the entry.
            device: ``"cpu"`` or ``"cuda:0"``.
            dtype: Of the transformer: ``"float32"``, ``"float16"`` or ``"bfloat16"``.

        Raises:
            Exception: Whatever the library makes of a broken file.
        """
        torch.set_num_threads(options.threads or min(torch.get_num_threads(), processors()))
        config = XttsConfig()
        config.load_json(str(folder / "config.json"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # init_from_config will be renamed
            self._xtts = _SafeXtts.init_from_config(config)
        self._xtts.load_checkpoint(config, checkpoint_dir=folder, eval=True)
        self._config = config
        self._options = options
        self._device = torch.device(device)
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._vocoder = StreamingVocoder(self._xtts.hifigan_decoder.waveform_decoder)
        self._xtts.hifigan_decoder.waveform_decoder = self._vocoder
        self._xtts.to(self._device).eval()
        self._set_precision(self._dtype)
        self._speakers = self._read_speakers()
        self._cloned: OrderedDict[bytes, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the built-in voices, in the file's order."""
        return tuple(self._speakers)

    @property
    def sample_rate(self) -> int:
        """Samples per second of what it says."""
        return int(self._config.audio.output_sample_rate)

    def speak(
        self,
        text: str,
        language: str,
        voice: str | bytes,
        *,
        speed: float = 1.0,
        seed: int | None = None,
        temperature: float | None = None,
        left: Callable[[], bool] = lambda: False,
    ) -> Iterator[Samples]:
        """Says a text, and gives the audio as it is made.

        Args:
            text: One utterance of any length.
            language: One of `LANGUAGES`.
            voice: Name of a built-in voice, or what `clone` packed.
            speed: Above 0.
            seed: Repeats what is drawn; ``None`` draws anew.
            temperature: 0 or more; 0 draws nothing. ``None`` takes the default.
            left: Asked after every token; true ends the work.

        Raises:
            InvalidArgument: The voice is not of this model, or the text can't be read.
        """
        conditioning, embedding = self._voice(voice)
        if seed is None:
            torch.seed()
        else:
            torch.manual_seed(seed)
        drawing = self._drawing(temperature)
        readable = self._readable(plain(text), language)
        for piece in pieces(
            readable, LIMITS[language], fits=lambda part: self._fits(part, language)
        ):
            self._vocoder.begin()
            chunks = self._xtts.inference_stream(
                piece,
                language,
                conditioning,
                embedding,
                speed=speed,
                stream_chunk_size=self._options.stream_chunk_size,
                stopping_criteria=StoppingCriteriaList(
                    [_Stop(self._longest(piece, language), left)]
                ),
                **drawing,
            )
            yield from self._given(chunks, left)

    @torch.inference_mode()
    def clone(self, samples: Samples, sample_rate: int) -> Latents:
        """Makes a voice from a recording; of a long one, the beginning counts.

        Raises:
            MediaError: There is less than a second of sound in it.
        """
        check_recording(samples, sample_rate)
        audio = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None]
        audio = audio[:, : int(self._config.max_ref_len * sample_rate)].to(self._device)
        # A recording is read once: in full precision, whatever the model speaks in.
        self._set_precision(torch.float32)
        try:
            conditioning = self._xtts.get_gpt_cond_latents(
                audio,
                sample_rate,
                length=self._config.gpt_cond_len,
                chunk_length=self._config.gpt_cond_chunk_len,
            )
            embedding = self._xtts.get_speaker_embedding(audio, sample_rate)
        finally:
            self._set_precision(self._dtype)
        return Latents(
            conditioning=conditioning.float().cpu().numpy(), embedding=embedding.cpu().numpy()
        )

    def _set_precision(self, dtype: torch.dtype) -> None:
        """Casts the transformer; the vocoder and the speaker encoder stay in float32."""
        width = int(self._config.model_args.gpt_n_model_channels)
        self._xtts.gpt.to(dtype)
        # The library adds zeros in float32 here, which would make all that follows float32.
        self._xtts.gpt.gpt.wpe = lambda positions: torch.zeros(
            *positions.shape, width, dtype=dtype, device=positions.device
        )

    def _read_speakers(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Moves the built-in voices to the device; a checkpoint may have none."""
        manager = self._xtts.speaker_manager
        named: Mapping[str, Mapping[str, torch.Tensor]] = manager.speakers if manager else {}
        return {
            name: self._placed(voice["gpt_cond_latent"], voice["speaker_embedding"])
            for name, voice in named.items()
        }

    def _placed(
        self, conditioning: torch.Tensor, embedding: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            conditioning.to(self._device, self._dtype),
            embedding.to(self._device, torch.float32),
        )

    def _voice(self, voice: str | bytes) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds a voice on the device, or brings it there."""
        if isinstance(voice, str):
            return self._speakers[voice]
        key = blake2b(voice).digest()
        placed = self._cloned.get(key)
        if placed is None:
            latents = unpack(
                voice, width=self._config.model_args.gpt_n_model_channels, embedding=_EMBEDDING
            )
            placed = self._placed(
                torch.from_numpy(latents.conditioning), torch.from_numpy(latents.embedding)
            )
            self._cloned[key] = placed
        self._cloned.move_to_end(key)
        while len(self._cloned) > self._options.cached_voices:
            self._cloned.popitem(last=False)
        return placed

    def _drawing(self, temperature: float | None) -> dict[str, float | int]:
        """Returns how tokens are drawn: the request's wish, else the entry's, else the file's."""
        config, options = self._config, self._options
        if temperature is None:
            temperature = options.temperature or float(config.temperature)
        greedy = temperature < _GREEDY
        return {
            "temperature": 1.0 if greedy else temperature,
            "top_k": 1 if greedy else options.top_k or int(config.top_k),
            "top_p": options.top_p or float(config.top_p),
            "repetition_penalty": options.repetition_penalty or float(config.repetition_penalty),
        }

    def _readable(self, text: str, language: str) -> str:
        """Returns the text, or what of it the library's normalizer of the language can read."""
        problem: Exception | None = None
        for reading in readings(text, language):
            try:
                self._xtts.tokenizer.preprocess_text(reading, language)
            except Exception as err:  # the normalizers of 17 languages raise whatever fits them
                problem = err
            else:
                return reading
        raise _unreadable(language) from problem

    def _fits(self, piece: str, language: str) -> bool:
        """True if the text's tokens are fewer than the transformer has positions for."""
        try:
            tokens = self._xtts.tokenizer.encode(piece, lang=language)
        except Exception as err:  # as above, where a number was cut in two
            raise _unreadable(language) from err
        return len(tokens) < int(self._config.model_args.gpt_max_text_tokens)

    def _longest(self, piece: str, language: str) -> int:
        """Returns the most audio tokens of a piece: half more than slow speech needs.

        Where the model misses its end, it would babble on to its limit of 28 seconds.
        """
        letters = len(self._xtts.tokenizer.preprocess_text(piece, language))
        most = int(self._xtts.gpt.max_gen_mel_tokens)
        return min(most, _SPARE_TOKENS + int(1.5 * most * letters / _FULL_LENGTH))

    def _given(
        self, chunks: Generator[torch.Tensor, None, None], left: Callable[[], bool]
    ) -> Iterator[Samples]:
        """Hands out chunks as they are made; closes the generation when it is closed."""
        with closing(chunks):
            while not left():
                chunk = next(chunks, None)
                if chunk is None:
                    return
                if len(chunk) and not left():
                    yield chunk.float().clamp(-1, 1).cpu().numpy()


def _unreadable(language: str) -> InvalidArgument:
    return InvalidArgument(
        f"The text can't be read aloud in the language {language!r}.", field="text"
    )
