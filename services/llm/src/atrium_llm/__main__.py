"""Starts the text service: settings, then engines, then the server until a signal."""

from atrium_common.catalogue import CatalogueError
from atrium_common.composition import open_lifecycle
from atrium_common.process import run_service
from atrium_common.registry import with_engine
from atrium_common.server import serve
from atrium_common.settings import read_settings
from atrium_common.weights import WeightStore
from atrium_llm.engines import open_engines
from atrium_llm.engines.vllm_options import with_arguments
from atrium_llm.servicer import TextGenerationServicer
from atrium_llm.settings import LlmSettings


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = read_settings(LlmSettings)
    try:
        catalogue = settings.open_catalogue()
        entries = with_engine(catalogue.for_service("llm"), settings.engine)
        entries = with_arguments(
            entries,
            {
                "gpu_memory_utilization": settings.gpu_memory_utilization,
                "max_model_len": settings.max_model_len,
            },
        )
        lifecycle = open_lifecycle(settings, catalogue, entries)
        store = WeightStore(settings.models_dir, cache=settings.cache_dir)
        engines = open_engines(entries, store=store, lifecycle=lifecycle)
    except CatalogueError as error:
        raise SystemExit(f"atrium_llm: {error}") from None
    servicer = TextGenerationServicer(engines, catalogue, max_queue=settings.max_queue)
    run_service(serve(servicer, engines, settings, lifecycle=lifecycle))


if __name__ == "__main__":
    main()
