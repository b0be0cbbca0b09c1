"""Starts the speech service: settings, then engines, then the server until a signal."""

from atrium_common.catalogue import CatalogueError
from atrium_common.composition import open_lifecycle
from atrium_common.process import run_service
from atrium_common.registry import with_engine
from atrium_common.server import serve
from atrium_common.settings import read_settings
from atrium_common.weights import WeightStore
from atrium_tts.convert import TextLimits
from atrium_tts.engines import open_engines
from atrium_tts.servicer import SpeechServicer
from atrium_tts.settings import TtsSettings
from atrium_tts.speech import Speaker
from atrium_tts.voices import VoiceStore
from atrium_tts.voices_reference import ReferenceLimits


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = read_settings(TtsSettings)
    try:
        catalogue = settings.open_catalogue()
        entries = with_engine(catalogue.for_service("tts"), settings.engine)
        lifecycle = open_lifecycle(settings, catalogue, entries)
        store = WeightStore(settings.models_dir, cache=settings.cache_dir)
        engines = open_engines(entries, store=store, lifecycle=lifecycle)
    except CatalogueError as error:
        raise SystemExit(f"atrium_tts: {error}") from None
    servicer = SpeechServicer(
        engines,
        catalogue,
        speaker=Speaker(engines, max_speeches=settings.max_speeches, max_queue=settings.max_queue),
        voices=VoiceStore(settings.voices_folder, limit=settings.max_voices),
        references=ReferenceLimits(
            max_bytes=settings.max_reference_bytes, directory=settings.spool_dir
        ),
        limits=TextLimits(
            characters=settings.max_characters, ssml_characters=settings.max_ssml_characters
        ),
    )
    run_service(serve(servicer, engines, settings, lifecycle=lifecycle))


if __name__ == "__main__":
    main()
