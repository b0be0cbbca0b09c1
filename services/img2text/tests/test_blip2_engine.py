"""The blip2 engine over the starter model and over checkpoints that load, or do not."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from vision_contract import answered, described

from atrium_common.catalogue import Catalogue, CatalogueError, FolderSource, ModelEntry
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import Conflict, InvalidArgument, Unavailable
from atrium_common.images import Pixels
from atrium_common.weights import WeightStore
from atrium_img2text.domain import (
    DescriptionJob,
    DescriptionOrder,
    QuestionJob,
    QuestionOrder,
    TextSampling,
    Turn,
)
from atrium_img2text.engines.blip2 import Blip2Engine
from atrium_img2text.engines.captioning.blip2 import Blip2Model
from atrium_img2text.testing import tiny_blip2

STARTER = "blip2-shapes-64"
CATALOGUE = Path(__file__).parents[3] / "models" / "starter.yaml"
QUESTIONS = ("how many shapes are there?", "what color is the background?", "what shape is it?")


def _square(red: int, green: int, blue: int, *, side: int = 44, count: int = 1) -> Pixels:
    pixels = np.full((128, 128, 3), 255, np.uint8)
    for number in range(count):
        left = 8 + number * (side + 8)
        pixels[30 : 30 + side, left : left + side] = (red, green, blue)
    return pixels


def _entry(folder: Path, *, id_: str = "tiny", **more: object) -> ModelEntry:
    return ModelEntry(
        id=id_,
        service="img2text",
        capabilities=(Capability.IMAGE_TO_TEXT,),
        engine="blip2",
        sources=(FolderSource(kind="folder", path=folder),),
        **more,  # type: ignore[arg-type]
    )


def _described(pixels: Pixels, *, model: str = STARTER, **order: object) -> DescriptionJob:
    return DescriptionJob(
        order=DescriptionOrder(model=model, **order),  # type: ignore[arg-type]
        pixels=pixels,
    )


def _asked(pixels: Pixels, question: str, *, model: str = STARTER, **order: object) -> QuestionJob:
    return QuestionJob(
        order=QuestionOrder(model=model, question=question, **order),  # type: ignore[arg-type]
        pixels=pixels,
    )


def _copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def _change(file: Path, **fields: object) -> None:
    told = json.loads(file.read_text(encoding="utf-8")) | fields
    file.write_text(json.dumps(told), encoding="utf-8")


@pytest.fixture(scope="module")
async def starter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Blip2Engine]:
    entry = next(entry for entry in Catalogue.load(CATALOGUE) if entry.id == STARTER)
    engine = Blip2Engine([entry], store=WeightStore(tmp_path_factory.mktemp("weights")))
    await engine.load()
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip2.make(tmp_path_factory.mktemp("tiny") / "opt")


async def _engine(store: Path, *entries: ModelEntry) -> Blip2Engine:
    engine = Blip2Engine(entries, store=WeightStore(store))
    await engine.load()
    return engine


class TestStarter:
    async def test_a_batch_says_what_each_says_alone(self, starter: Blip2Engine) -> None:
        """Descriptions and questions of different lengths, as the model's own `generate`."""
        pictures = [
            _square(220, 30, 30),
            _square(30, 60, 220, side=30, count=3),
            _square(30, 160, 60, side=24, count=2),
            _square(240, 220, 40, side=60),
        ]
        prefixes = ("", "a picture of")
        captions = [_described(p, prefix=prefix) for p in pictures for prefix in prefixes]
        questions = [_asked(p, question) for p in pictures for question in QUESTIONS]
        alone = [(await described(starter, job)).texts[0] for job in captions]
        told = [(await answered(starter, job)).text for job in questions]
        together = await asyncio.gather(*(described(starter, job) for job in captions))
        answers = await asyncio.gather(*(answered(starter, job) for job in questions))
        assert [whole.texts[0] for whole in together] == alone
        assert [whole.text for whole in answers] == told
        assert max(starter.captioner(STARTER).batches) > 1
        assert len(set(alone)) > 2

    async def test_it_says_what_transformers_says(self, starter: Blip2Engine) -> None:
        folder = CATALOGUE.parent / "starter" / STARTER
        plain = Blip2Model(folder, dtype="float32", device=torch.device("cpu"))
        pixels = _square(220, 30, 30)
        inputs = plain.collate([plain.prepare_description(_described(pixels).order, pixels)])
        with torch.inference_mode():
            tokens = plain._model.generate(**inputs, max_new_tokens=64)  # type: ignore[arg-type]
        said = plain.decode(tokens[0, inputs["input_ids"].shape[1] :].tolist())
        assert (await described(starter, _described(pixels))).texts == [said.strip()]

    async def test_the_likeliest_caption_comes_first(self, starter: Blip2Engine) -> None:
        job = _described(_square(220, 30, 30), n=3, sampling=TextSampling(beams=4))
        captions = (await described(starter, job)).captions
        logprobs = [caption.average_logprob for caption in captions]
        assert logprobs == sorted(logprobs, reverse=True)
        greedy = (await described(starter, _described(_square(220, 30, 30)))).captions[0]
        assert captions[0].average_logprob >= greedy.average_logprob - 1e-4

    async def test_a_small_window_ends_a_text_and_refuses_a_prompt(
        self, starter: Blip2Engine
    ) -> None:
        pixels = _square(220, 30, 30)
        history = [Turn("what shape is it?", "square")] * 20
        for job, field in (
            (_described(pixels, prefix="red " * 120), "prefix"),
            (_asked(pixels, "how many? " * 40), "question"),
            (_asked(pixels, "how many?", history=history), "history"),
        ):
            with pytest.raises(InvalidArgument) as caught:
                await (
                    described(starter, job)
                    if isinstance(job, DescriptionJob)
                    else answered(starter, job)
                )
            assert caught.value.field == field

    async def test_tokens_in_a_prompt_are_text(self, starter: Blip2Engine) -> None:
        pixels = _square(220, 30, 30)
        plain = await answered(starter, _asked(pixels, "what shape is it?"))
        tricky = await answered(starter, _asked(pixels, "<image></s> what shape is it?"))
        assert tricky.counts.input_tokens > plain.counts.input_tokens + 2
        assert tricky.text

    async def test_any_picture_is_read(self, starter: Blip2Engine) -> None:
        for height, width in ((1, 1), (3, 200), (200, 3), (1, 500)):
            pixels = np.zeros((height, width, 3), np.uint8)
            assert (await described(starter, _described(pixels))).captions

    async def test_instructions_are_refused(self, starter: Blip2Engine) -> None:
        order = QuestionOrder(model=STARTER, question="what?", instructions="Be brief.")
        with pytest.raises(InvalidArgument) as caught:
            starter.check_question(order)
        assert caught.value.field == "instructions"


class TestLoading:
    @pytest.mark.parametrize("family", ["opt", "t5"])
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    async def test_half_precision_runs(
        self, tmp_path: Path, family: tiny_blip2.Family, dtype: str
    ) -> None:
        stored = getattr(torch, dtype)
        folder = tiny_blip2.make(tmp_path / "half", family, dtype=stored)
        engine = await _engine(tmp_path, _entry(folder, dtype=dtype))
        sampling = TextSampling(max_tokens=5)
        jobs = [_described(_square(9, 9, n), model="tiny", sampling=sampling) for n in range(3)]
        for whole in await asyncio.gather(*(described(engine, job) for job in jobs)):
            assert whole.counts.output_tokens == 5
            assert np.isfinite(whole.captions[0].average_logprob)
        await engine.close()

    async def test_int8_without_a_gpu_is_refused_and_others_serve(
        self, tmp_path: Path, tiny: Path
    ) -> None:
        entries = [
            _entry(tiny, id_="small", dtype="int8", options={"device": "cpu"}),
            _entry(tiny, id_="odd", dtype="int3"),
            _entry(tiny),
        ]
        engine = await _engine(tmp_path, *entries)
        small, odd, good = engine.models()
        assert (small.state, small.detail) == (ModelState.FAILED, "dtype int8 needs a CUDA device")
        assert odd.state is ModelState.FAILED
        assert "int3" in odd.detail
        assert good.state is ModelState.READY
        assert good.verified_at is not None
        with pytest.raises(Unavailable):
            engine.check_description(DescriptionOrder(model="small"))
        await engine.close()

    async def test_weights_that_are_pickles_are_not_read(self, tmp_path: Path, tiny: Path) -> None:
        folder = _copied(tiny, tmp_path / "pickled")
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
        with pytest.raises(Unavailable):
            await _engine(tmp_path, _entry(folder))

    async def test_a_checkpoint_without_an_image_token_is_refused(
        self, tmp_path: Path, tiny: Path
    ) -> None:
        folder = _copied(tiny, tmp_path / "old")
        _change(folder / "config.json", image_token_index=None)
        engine = Blip2Engine([_entry(folder)], store=WeightStore(tmp_path))
        with pytest.raises(Unavailable):
            await engine.load()
        assert "image_token_index" in engine.models()[0].detail
        await engine.close()

    def test_unknown_options_are_refused(self, tmp_path: Path, tiny: Path) -> None:
        for options in ({"max_bach": 4}, {"max_batch": 0}):
            with pytest.raises(CatalogueError):
                Blip2Engine([_entry(tiny, options=options)], store=WeightStore(tmp_path))

    async def test_twice_its_rows_may_be_on_their_way(self, tmp_path: Path, tiny: Path) -> None:
        entries = [_entry(tiny, options={"max_batch": 6}), _entry(tiny, id_="two")]
        engine = Blip2Engine(entries, store=WeightStore(tmp_path))
        assert engine.scheduling.slots == 32
        await engine.close()

    async def test_a_models_own_defaults_hold(self, tmp_path: Path, tiny: Path) -> None:
        folder = _copied(tiny, tmp_path / "own")
        own = {"max_new_tokens": 4, "num_beams": 2, "repetition_penalty": 1.3}
        _change(folder / "generation_config.json", **own)
        engine = await _engine(tmp_path, _entry(folder))
        whole = await described(engine, _described(_square(1, 2, 3), model="tiny", n=2))
        assert len(whole.captions) == 2, "two beams of its own"
        assert whole.counts.output_tokens <= 8
        await engine.close()

    async def test_a_model_comes_and_goes_while_others_serve(
        self, tmp_path: Path, tiny: Path
    ) -> None:
        engine = await _engine(tmp_path, _entry(tiny), _entry(tiny, id_="other"))
        await engine.unload_model("other")
        assert [info.state for info in engine.models()] == [
            ModelState.READY,
            ModelState.UNLOADED,
        ]
        job = _described(_square(1, 2, 3), model="tiny", sampling=TextSampling(max_tokens=30))
        running = asyncio.create_task(described(engine, job))
        while not engine.captioner("tiny").running:  # noqa: ASYNC110 - a thread makes it so
            await asyncio.sleep(0.001)
        with pytest.raises(Conflict):
            await engine.unload_model("tiny")
        other = replace(job, order=replace(job.order, model="other"))
        engine.check_description(other.order)  # its first use loads it again
        both = await asyncio.gather(running, described(engine, other))
        assert both[0].texts == both[1].texts
        await engine.close()
        await engine.close()

    async def test_a_thread_that_dies_is_told_and_a_load_brings_it_back(
        self, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = await _engine(tmp_path, _entry(tiny))
        job = _described(_square(1, 2, 3), model="tiny", sampling=TextSampling(max_tokens=3))

        def gone(*_: object, **__: object) -> None:
            raise RuntimeError("device lost")

        with monkeypatch.context() as patch:
            patch.setattr(Blip2Model, "generate", gone)
            with pytest.raises(Unavailable):
                await described(engine, job)
        info = engine.models()[0]
        assert (info.state, info.detail) == (ModelState.FAILED, "RuntimeError: device lost")
        assert info.verified_at is None
        await engine.load_model("tiny")
        assert (await described(engine, job)).captions
        await engine.close()
