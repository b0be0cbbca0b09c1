"""`atrium.common.v1.ModelService` for any engine; `server.py` serves it everywhere."""

import grpc.aio

from atrium.common.v1 import model_pb2 as pb
from atrium.common.v1 import model_pb2_grpc
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine import Engine, LoadsModels, UnloadsModels
from atrium_common.errors import InvalidArgument, NotFound, Unimplemented
from atrium_common.models import ModelBoard
from atrium_common.service import Context
from atrium_common.wire import model_to_proto

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ModelService"].full_name
OPERATORS_ONLY = frozenset(f"/{SERVICE_NAME}/{name}" for name in ("LoadModel", "UnloadModel"))


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Lists an engine's models and moves them where the engine can."""

    def __init__(self, engine: Engine, board: ModelBoard, *, verify_seconds: float = 60.0) -> None:
        self._engine = engine
        self._board = board
        self._verify_seconds = verify_seconds

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service to `server`."""
        model_pb2_grpc.add_ModelServiceServicer_to_server(self, server)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Lists the models."""
        return pb.ListModelsResponse(models=[model_to_proto(m) for m in self._board.models()])

    async def LoadModel(
        self, request: pb.LoadModelRequest, context: Context
    ) -> pb.LoadModelResponse:
        """Loads and verifies a model; does nothing for a ready one."""
        model = self._find(request.model)
        if model.state is not ModelState.READY:
            if not isinstance(self._engine, LoadsModels):
                raise Unimplemented(f"The engine {self._engine.name} can't load a single model.")
            self._board.forget(model.id)
            await self._engine.load_model(model.id)
            if self._find(model.id).verified_at is None or model.state is ModelState.FAILED:
                await self._board.verify(model.id, timeout=self._verify_seconds)
        return pb.LoadModelResponse(model=model_to_proto(self._find(model.id)))

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Context
    ) -> pb.UnloadModelResponse:
        """Unloads a model."""
        model = self._find(request.model)
        if not isinstance(self._engine, UnloadsModels):
            raise Unimplemented(f"The engine {self._engine.name} can't unload a single model.")
        await self._engine.unload_model(model.id)
        self._board.forget(model.id)
        return pb.UnloadModelResponse(model=model_to_proto(self._find(model.id)))

    def _find(self, name: str) -> ModelInfo:
        if not name:
            raise InvalidArgument("Name a model.", field="model")
        model = self._board.find(name)
        if model is None:
            raise NotFound(f"There is no model {name[:128]!r}.", field="model")
        return model
