"""Speech of any OpenAI-compatible server: OpenAI, Kokoro-FastAPI, speaches, Atrium.

An outside provider is an engine like every other, so that queue, limits and ledger
treat its models like our own. It gets a text whole, as it cuts sentences itself.
"""

from collections.abc import AsyncGenerator, Sequence

import httpx2
import openai

from atrium_common.errors import InvalidArgument
from atrium_common.openai_upstream import broken, from_openai_error, silent
from atrium_common.provider_engine import ProviderEngine
from atrium_tts.domain import SpeakRequest, Voice
from atrium_tts.engines.base import Samples
from atrium_tts.engines.openai_options import OpenAISpeechOptions, VoiceOptions
from atrium_tts.engines.openai_pcm import PcmReader, is_audio

_FIELDS = {
    "input": "text",
    "voice": "voice",
    "speed": "speed",
    "instructions": "instructions",
    "model": "model",
}
"""The provider's names of what a caller of ours gave, and ours."""


class OpenAIEngine(ProviderEngine[OpenAISpeechOptions]):
    """Passes texts on to providers and their audio back, as it arrives."""

    options_type = OpenAISpeechOptions
    sentencewise = False

    async def verify(self, model: str) -> None:
        """Asks the provider for one word."""
        options = self.options(model)
        voice = _voice(options.voices[0], model, options)
        request = SpeakRequest(model=model, voice=voice, text="Yes.", language=voice.languages[0])
        async for _ in self.speak(request):
            pass

    def voices(self) -> Sequence[Voice]:
        """Lists the providers' voices, model by model."""
        return tuple(
            _voice(voice, model, options)
            for model, options in self._options.items()
            for voice in options.voices
        )

    def languages(self, model: str) -> Sequence[str]:
        """BCP 47 tags that the model speaks; the provider hears which from the text."""
        return self.options(model).languages

    def sample_rate(self, model: str) -> int:
        """Samples per second; 24000 at OpenAI."""
        return self.options(model).sample_rate

    def speeds(self, model: str) -> tuple[float, float]:
        """Slowest and fastest that the provider speaks."""
        options = self.options(model)
        return options.min_speed, options.max_speed

    def check_ready(self, model: str) -> None:
        """Refuses a model without a key."""
        self.client(model)

    def check(self, request: SpeakRequest) -> None:
        """Refuses what OpenAI's API has no word for, and what the model does not follow."""
        options = self.options(request.model)
        for field in ("seed", "temperature"):
            if getattr(request, field) is not None:
                raise _unsupported(request.model, field)
        if request.instructions and not options.follows_instructions:
            raise _unsupported(request.model, "instructions")
        if len(request.text) > options.max_characters:
            raise InvalidArgument(
                f"The model {request.model!r} takes at most {options.max_characters} characters.",
                reason="TEXT_TOO_LONG",
                field="text",
            )

    async def speak(self, request: SpeakRequest) -> AsyncGenerator[Samples, None]:
        """Streams the provider's audio; closing it closes the connection."""
        self.check(request)
        model = request.model
        client = self.client(model)
        reader = PcmReader()
        try:
            async with client.audio.speech.with_streaming_response.create(
                model=self.options(model).model or model,
                input=request.text,
                voice=request.voice.id,
                response_format="pcm",
                speed=request.speed if request.speed != 1.0 else openai.omit,
                instructions=request.instructions or openai.omit,
            ) as answer:
                if not is_audio(answer.headers.get("content-type", "")):
                    raise broken(model)
                async for data in answer.iter_bytes():
                    samples = reader.read(data)
                    if samples.size:
                        yield samples
        except openai.OpenAIError as error:
            raise from_openai_error(
                error, model=model, secret=client.api_key, field_of=_FIELDS.get
            ) from error
        except httpx2.TimeoutException as error:
            raise silent(model) from error
        except (httpx2.HTTPError, ValueError) as error:
            # The client library wraps no error of a body that was begun.
            raise broken(model) from error
        if not reader.complete:
            raise broken(model)


def _voice(voice: VoiceOptions, model: str, options: OpenAISpeechOptions) -> Voice:
    return Voice(
        id=voice.id,
        name=voice.name or voice.id,
        models=(model,),
        languages=voice.languages or options.languages,
        gender=voice.gender,
        license=voice.license,
        aliases=voice.aliases,
    )


def _unsupported(model: str, field: str) -> InvalidArgument:
    return InvalidArgument(
        f"The model {model!r} does not support {field}.",
        reason="UNSUPPORTED_PARAMETER",
        field=field,
    )
