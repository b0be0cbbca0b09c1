"""What every engine does with the entries of its models: finds one, loads all, and reports them."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import TypeVar

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.errors import AtriumError, NotFound

KnownT = TypeVar("KnownT")


def find_model(models: Mapping[str, KnownT], model: str) -> KnownT:
    """Returns what `models` holds for `model`, a catalogue id.

    Raises:
        NotFound: Nothing; the reason is ``MODEL_NOT_FOUND``.
    """
    known = models.get(model)
    if known is None:
        raise NotFound(
            f"The model {model!r} does not exist.", reason="MODEL_NOT_FOUND", field="model"
        )
    return known


async def load_each(models: Collection[str], load: Callable[[str], Awaitable[None]]) -> None:
    """Loads models one after the other; one that fails does not keep the others from serving.

    Args:
        models: Catalogue ids.
        load: Loads one of them, and notes why where it can't.

    Raises:
        AtriumError: None could be loaded; the first one's error.
    """
    errors: list[AtriumError] = []
    for model in models:
        try:
            await load(model)
        except AtriumError as err:
            errors.append(err)
    if errors and len(errors) == len(models):
        raise errors[0]


def model_info(
    entry: ModelEntry,
    *,
    engine: str,
    state: ModelState = ModelState.UNLOADED,
    context_length: int | None = None,
    embedding_dimensions: int | None = None,
    verified_at: datetime | None = None,
    detail: str = "",
    memory_bytes: int = 0,
    last_used_at: datetime | None = None,
) -> ModelInfo:
    """Reports a model by what the catalogue says of it and where it stands.

    Args:
        entry: Its entry.
        engine: Name of the engine that runs it.
        state: Where it stands.
        context_length: As in `ModelInfo`; ``None`` takes the entry's.
        embedding_dimensions: As in `ModelInfo`; ``None`` takes the entry's.
        verified_at: When it was last verified since loading.
        detail: Why it is FAILED.
        memory_bytes: As in `ModelInfo`.
        last_used_at: As in `ModelInfo`.
    """
    if context_length is None:
        context_length = entry.context_length or 0
    if embedding_dimensions is None:
        embedding_dimensions = entry.embedding_dimensions or 0
    return ModelInfo(
        id=entry.id,
        capabilities=entry.capabilities,
        engine=engine,
        aliases=entry.aliases,
        state=state,
        digest=entry.digest,
        license=entry.license,
        context_length=context_length,
        embedding_dimensions=embedding_dimensions,
        verified_at=verified_at,
        detail=detail,
        memory_bytes=memory_bytes,
        last_used_at=last_used_at,
    )
