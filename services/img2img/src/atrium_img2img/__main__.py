"""Starts the service that edits: settings, then engines, then the server until a signal."""

from datetime import timedelta

from atrium_common.catalogue import CatalogueError
from atrium_common.composition import open_lifecycle
from atrium_common.images import ImageLimits
from atrium_common.process import run_service
from atrium_common.registry import with_engine
from atrium_common.server import serve
from atrium_common.settings import read_settings
from atrium_common.weights import WeightStore
from atrium_diffusion.finishing import Finisher
from atrium_diffusion.safety import open_safety_check
from atrium_diffusion.studio import Studio
from atrium_img2img.engines import open_engines
from atrium_img2img.servicer import ImageEditServicer
from atrium_img2img.settings import ImageEditSettings
from atrium_img2img.uploads import UploadLimits, Uploads


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = read_settings(ImageEditSettings)
    try:
        catalogue = settings.open_catalogue()
        entries = with_engine(catalogue.for_service("img2img"), settings.engine)
        lifecycle = open_lifecycle(settings, catalogue, entries)
        engines = open_engines(
            entries,
            store=WeightStore(settings.models_dir, cache=settings.cache_dir),
            adapters=catalogue.adapters,
            lifecycle=lifecycle,
        )
        safety = open_safety_check(settings.safety_check)
    except CatalogueError as error:
        raise SystemExit(f"atrium_img2img: {error}") from None
    studio = Studio(
        engines,
        finisher=Finisher(safety=safety),
        max_requests=settings.max_requests,
        max_queue=settings.max_queue,
    )
    limits = UploadLimits(
        images=ImageLimits(
            max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels
        ),
        max_decoding=settings.max_decoding,
        max_held_pixels=settings.max_held_pixels,
        idle=timedelta(seconds=settings.upload_idle_seconds),
        directory=settings.spool_dir,
    )
    servicer = ImageEditServicer(engines, catalogue, studio=studio, uploads=Uploads(limits))
    run_service(serve(servicer, engines, settings, lifecycle=lifecycle))


if __name__ == "__main__":
    main()
