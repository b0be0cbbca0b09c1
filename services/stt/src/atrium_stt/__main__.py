"""Starts the transcription service: settings, then engines, then the server until a signal."""

from datetime import timedelta

from atrium_common.catalogue import CatalogueError
from atrium_common.composition import open_lifecycle
from atrium_common.process import run_service
from atrium_common.registry import with_engine
from atrium_common.server import serve
from atrium_common.settings import read_settings
from atrium_common.weights import WeightStore
from atrium_stt.engines import open_engines
from atrium_stt.live.listening import LiveLimits
from atrium_stt.recording import AudioLimits
from atrium_stt.servicer import TranscriptionServicer
from atrium_stt.settings import SttSettings


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = read_settings(SttSettings)
    try:
        catalogue = settings.open_catalogue()
        entries = with_engine(catalogue.for_service("stt"), settings.engine)
        lifecycle = open_lifecycle(settings, catalogue, entries)
        store = WeightStore(settings.models_dir, cache=settings.cache_dir)
        engines = open_engines(entries, store=store, lifecycle=lifecycle)
    except CatalogueError as error:
        raise SystemExit(f"atrium_stt: {error}") from None
    servicer = TranscriptionServicer(
        engines,
        catalogue,
        limits=AudioLimits(
            duration=timedelta(seconds=settings.max_audio_seconds), directory=settings.spool_dir
        ),
        max_bytes=settings.max_audio_bytes,
        max_queue=settings.max_queue,
        max_decoding=settings.max_decoding,
        reserve=timedelta(seconds=settings.reserved_audio_seconds),
        live=LiveLimits(
            duration=timedelta(seconds=settings.max_live_seconds),
            idle=timedelta(seconds=settings.live_idle_seconds),
            reserve=timedelta(seconds=settings.reserved_audio_seconds),
        ),
        max_live_sessions=settings.max_live_sessions,
    )
    run_service(serve(servicer, engines, settings, lifecycle=lifecycle))


if __name__ == "__main__":
    main()
