"""No engine of llm loads a model whose licence was not accepted, were its files there."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from atrium_common.catalogue import FolderSource, ModelEntry, WeightFile
from atrium_common.domain import Capability
from atrium_common.weights import WeightsError, WeightStore
from atrium_llm.weights import model_folder


def test_a_licence_is_accepted_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    files = (WeightFile(name="model.safetensors", sha256=digest),)
    entry = ModelEntry(
        id="strict",
        service="llm",
        capabilities=(Capability.CHAT,),
        engine="vllm",
        license="Strict-1.0",
        accept_license=True,
        sources=(FolderSource(kind="folder", path=tmp_path, files=files),),
    )
    store = WeightStore(tmp_path / "models")
    with pytest.raises(WeightsError, match="licence accept strict"):
        model_folder(store, entry)
    store.licences.accept(entry, by="Ada", at=datetime(2026, 11, 21, tzinfo=UTC))
    assert model_folder(store, entry) == tmp_path
