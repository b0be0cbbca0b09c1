"""Starts the service that draws: settings, then engines, then the server until a signal."""

from atrium_common.catalogue import CatalogueError
from atrium_common.composition import open_lifecycle
from atrium_common.process import run_service
from atrium_common.registry import with_engine
from atrium_common.server import serve
from atrium_common.settings import read_settings
from atrium_common.weights import WeightStore
from atrium_diffusion.finishing import Finisher
from atrium_diffusion.safety import open_safety_check
from atrium_diffusion.studio import Studio
from atrium_text2image.engines import open_engines
from atrium_text2image.servicer import TextToImageServicer
from atrium_text2image.settings import TextToImageSettings


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = read_settings(TextToImageSettings)
    try:
        catalogue = settings.open_catalogue()
        entries = with_engine(catalogue.for_service("text2image"), settings.engine)
        lifecycle = open_lifecycle(settings, catalogue, entries)
        engines = open_engines(
            entries,
            store=WeightStore(settings.models_dir, cache=settings.cache_dir),
            adapters=catalogue.adapters,
            lifecycle=lifecycle,
        )
        safety = open_safety_check(settings.safety_check)
    except CatalogueError as error:
        raise SystemExit(f"atrium_text2image: {error}") from None
    studio = Studio(
        engines,
        finisher=Finisher(safety=safety),
        max_requests=settings.max_requests,
        max_queue=settings.max_queue,
    )
    servicer = TextToImageServicer(engines, catalogue, studio=studio)
    run_service(serve(servicer, engines, settings, lifecycle=lifecycle))


if __name__ == "__main__":
    main()
