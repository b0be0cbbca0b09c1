"""`GET /v1/models`, `/v1/models/{model}` and `/api/models`: what can be asked for."""

import asyncio
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelInfo, ModelState
from atrium_common.errors import AtriumError, NotFound
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.auth.principal import Principal
from atrium_gateway.auth.roles import Role
from atrium_gateway.deps import OFFERED, Gateway
from atrium_gateway.upstreams.health import ServiceWatch
from atrium_gateway.upstreams.img2img import ImageEditUpstream
from atrium_gateway.upstreams.pictures import Limits
from atrium_gateway.upstreams.seeing import ReadingModel
from atrium_gateway.upstreams.text2image import TextToImageUpstream

_ENCODER = msgspec.json.Encoder()
CREATED = 1_735_689_600
"""OpenAI's shape wants a time; the catalogue knows none, so all models have this one."""


class ModelObject(Struct, frozen=True, kw_only=True):
    """A model in OpenAI's shape, and what it can do."""

    id: str
    capabilities: list[str]
    aliases: list[str]
    created: int = CREATED
    object: str = "model"
    owned_by: str = "atrium"


class ModelList(Struct, frozen=True):
    """Answer of `GET /v1/models`."""

    data: list[ModelObject]
    object: str = "list"


class ModelDetail(Struct, frozen=True, kw_only=True):
    """A model with its present state.

    Attributes:
        state: ``"ready"``, ``"loading"``, ``"unloaded"``, ``"failed"``, or
            ``"unknown"`` while its service does not answer.
        memory_bytes: What it takes of its device's memory now; 0 if it is not loaded, or not
            known.
        last_used_at: When a request last ran on it since it was loaded.
        detail: Why it is ``"failed"``; operators alone are told.
        default_for: Capabilities for which it serves requests that name no model.
        pictures: Sizes and steps that a picture model takes, while its service answers.
        reading: Languages that a model reads, and pages at once, while its service answers.
    """

    id: str
    service: str
    engine: str
    capabilities: list[str]
    default_for: list[str]
    aliases: list[str]
    state: str
    verified_at: str | None
    last_used_at: str | None
    memory_bytes: int
    detail: str
    license: str
    digest: str
    context_length: int | None
    embedding_dimensions: int | None
    pictures: Limits | None
    reading: ReadingModel | None


class ModelDetails(Struct, frozen=True):
    """Answer of `GET /api/models`."""

    models: list[ModelDetail]


async def list_models(exchange: Exchange) -> None:
    """Lists the models that the caller may use, in the catalogue's order."""
    principal = await exchange.authenticate()
    entries = _offered(exchange.gateway, principal)
    await exchange.reply(_ENCODER.encode(ModelList([_object(entry) for entry in entries])))


async def retrieve_model(exchange: Exchange) -> None:
    """Shows one model, named by its id or an alias; the first, if they share an alias."""
    principal = await exchange.authenticate()
    entry = named(_offered(exchange.gateway, principal), exchange.path_params["model"])
    await exchange.reply(_ENCODER.encode(_object(entry)))


def named(entries: Iterable[ModelEntry], name: str) -> ModelEntry:
    """The entry of this id or alias; the first, if they share an alias.

    Raises:
        NotFound: There is none.
    """
    for entry in entries:
        if name == entry.id or name in entry.aliases:
            return entry
    raise NotFound(f"The model {name!r} does not exist.", reason="MODEL_NOT_FOUND", field="model")


async def list_model_details(exchange: Exchange) -> None:
    """Lists the models with their present state, asked of the services."""
    principal = await exchange.authenticate()
    gateway, request_id = exchange.gateway, exchange.record.request_id
    answers = await asyncio.gather(
        *(
            _known(watch, tenant=principal.tenant, request_id=request_id)
            for watch in gateway.services.values()
        )
    )
    states = {model.id: model for models in answers for model in models}
    limits, readers = await asyncio.gather(
        _picture_limits(gateway, tenant=principal.tenant, request_id=request_id),
        _readers(gateway, tenant=principal.tenant, request_id=request_id),
    )
    details = [
        _detail(
            gateway,
            entry,
            states.get(entry.id),
            pictures=limits.get(entry.id),
            reading=readers.get(entry.id),
            telling=Role.OPERATOR in principal.roles,
        )
        for entry in _offered(gateway, principal)
    ]
    await exchange.reply(_ENCODER.encode(ModelDetails(details)))


async def _known(watch: ServiceWatch, *, tenant: str, request_id: str) -> list[ModelInfo]:
    if not watch.health.reachable:
        return []
    try:
        return list(await watch.models(tenant=tenant, request_id=request_id))
    except AtriumError:
        return []  # shown as unknown: a list must not fail because one service does


async def _picture_limits(gateway: Gateway, *, tenant: str, request_id: str) -> dict[str, Limits]:
    """What the picture models take, by model; those of a service that is down are missing."""

    async def ask(name: str, service: TextToImageUpstream | ImageEditUpstream) -> Sequence[Limits]:
        if not gateway.services[name].health.serving:
            return ()
        try:
            return await service.limits(tenant=tenant, request_id=request_id)
        except AtriumError:
            return ()

    answers = await asyncio.gather(
        ask("text2image", gateway.text2image), ask("img2img", gateway.img2img)
    )
    return {limits.model: limits for answer in answers for limits in answer}


async def _readers(gateway: Gateway, *, tenant: str, request_id: str) -> dict[str, ReadingModel]:
    """What the models that read offer, by model; none while their service is down."""
    if not gateway.services["img2text"].health.serving:
        return {}
    try:
        readers = await gateway.img2text.readers(tenant=tenant, request_id=request_id)
    except AtriumError:
        return {}
    return {reader.model: reader for reader in readers}


def _offered(gateway: Gateway, principal: Principal) -> list[ModelEntry]:
    own = principal.models
    return [
        entry
        for entry in gateway.catalogue
        if set(entry.capabilities) & set(OFFERED) and (own is None or entry.id in own)
    ]


def _object(entry: ModelEntry) -> ModelObject:
    return ModelObject(
        id=entry.id,
        capabilities=[str(capability) for capability in entry.capabilities],
        aliases=list(entry.aliases),
    )


def _is_default(gateway: Gateway, entry: ModelEntry, capability: Capability) -> bool:
    """Whether requests that name no model get this one; its service is that of the endpoint."""
    seeing = capability in (Capability.IMAGE_TO_TEXT, Capability.OCR)
    able = gateway.catalogue.with_capability(capability, service="img2text" if seeing else None)
    return bool(able) and able[0] is entry


def _detail(
    gateway: Gateway,
    entry: ModelEntry,
    info: ModelInfo | None,
    *,
    pictures: Limits | None,
    reading: ReadingModel | None,
    telling: bool,
) -> ModelDetail:
    defaults = [
        str(capability)
        for capability in entry.capabilities
        if capability in OFFERED and _is_default(gateway, entry, capability)
    ]
    verified = info.verified_at if info and info.state is ModelState.READY else None
    return ModelDetail(
        id=entry.id,
        service=entry.service,
        engine=entry.engine,
        capabilities=[str(capability) for capability in entry.capabilities],
        default_for=defaults,
        aliases=list(entry.aliases),
        state=str(info.state) if info else "unknown",
        verified_at=verified.isoformat() if verified else None,
        last_used_at=info.last_used_at.isoformat() if info and info.last_used_at else None,
        memory_bytes=info.memory_bytes if info else 0,
        detail=info.detail if info and telling else "",
        license=entry.license,
        digest=entry.digest,
        context_length=entry.context_length,
        embedding_dimensions=entry.embedding_dimensions,
        pictures=pictures,
        reading=reading,
    )
