"""Starts the service that sees: settings, then engines, then the server until a signal."""

from atrium_common.catalogue import CatalogueError
from atrium_common.composition import open_lifecycle
from atrium_common.process import run_service
from atrium_common.registry import with_engine
from atrium_common.server import serve
from atrium_common.settings import read_settings
from atrium_common.weights import WeightStore
from atrium_img2text.engines import open_engines
from atrium_img2text.intake import Intake
from atrium_img2text.servicer import ImageUnderstandingServicer
from atrium_img2text.settings import ImageUnderstandingSettings


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = read_settings(ImageUnderstandingSettings)
    try:
        catalogue = settings.open_catalogue()
        entries = with_engine(catalogue.for_service("img2text"), settings.engine)
        lifecycle = open_lifecycle(settings, catalogue, entries)
        store = WeightStore(settings.models_dir, cache=settings.cache_dir)
        engines = open_engines(entries, store=store, lifecycle=lifecycle)
    except CatalogueError as error:
        raise SystemExit(f"atrium_img2text: {error}") from None
    servicer = ImageUnderstandingServicer(
        engines,
        catalogue,
        intake=Intake(settings.intake_limits()),
        max_pages=settings.max_pages,
        max_queue=settings.max_queue,
    )
    run_service(serve(servicer, engines, settings, lifecycle=lifecycle))


if __name__ == "__main__":
    main()
