"""Image-text-to-text models of three families, tiny and random, through the real path."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image
from transformers import AutoModelForImageTextToText
from vision_contract import VisionContract, answered, described, picture

from atrium_common.catalogue import FolderSource, ModelEntry
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import InvalidArgument, MediaError, Unavailable
from atrium_common.weights import WeightStore
from atrium_img2text.domain import (
    DescriptionJob,
    DescriptionOrder,
    FinishReason,
    QuestionJob,
    QuestionOrder,
    TextSampling,
    Turn,
)
from atrium_img2text.engines.base import VisionEngine
from atrium_img2text.engines.vlm import VlmEngine
from atrium_img2text.engines.vlm_processor import load_processor
from atrium_img2text.testing.tiny_vlm import DEAF_TEMPLATE, WINDOW, WRITERS, write_llava

FAMILIES = tuple(WRITERS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each family."""
    root = tmp_path_factory.mktemp("tiny-vlm")
    for name, write in WRITERS.items():
        (root / name).mkdir()
        write(root / name)
    return {name: root / name for name in WRITERS}


def entry(folder: Path, name: str = "tiny", **changes: object) -> ModelEntry:
    plain = ModelEntry(
        id=name,
        service="img2text",
        capabilities=(Capability.IMAGE_TO_TEXT,),
        engine="vlm",
        options={"device": "cpu", "max_batch": 8},
        sources=(FolderSource(kind="folder", path=folder),),
    )
    return plain.model_copy(update=changes)


@asynccontextmanager
async def opened(*entries: ModelEntry) -> AsyncIterator[VlmEngine]:
    engine = VlmEngine(entries, store=WeightStore(Path("unused")))
    try:
        await engine.load()
        yield engine
    finally:
        await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine(folders: dict[str, Path]) -> AsyncIterator[VlmEngine]:
    """All families, loaded once."""
    async with opened(*(entry(folder, name) for name, folder in folders.items())) as engine:
        yield engine


class _VlmContract(VisionContract):
    long_answer_tokens = 200

    def running(self, engine: VisionEngine) -> int | None:
        assert isinstance(engine, VlmEngine)
        return engine.captioner(self.model).running


class TestQwen(_VlmContract):
    model = "qwen"


class TestIdefics(_VlmContract):
    model = "idefics"


def asking(model: str = "tiny", question: str = "What is it?", **changes: object) -> QuestionJob:
    order = QuestionOrder(model=model, question=question, sampling=TextSampling(max_tokens=8))
    return QuestionJob(order=replace(order, **changes), pixels=picture())  # type: ignore[arg-type]


def describing(model: str = "tiny", **changes: object) -> DescriptionJob:
    order = DescriptionOrder(model=model, sampling=TextSampling(max_tokens=8))
    return DescriptionJob(order=replace(order, **changes), pixels=picture())  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
async def test_an_answer_is_what_the_library_says(
    engine: VlmEngine, folders: dict[str, Path], family: str
) -> None:
    processor = load_processor(folders[family])
    model = AutoModelForImageTextToText.from_pretrained(folders[family])
    job = asking(family)
    image = {"type": "image", "image": Image.fromarray(job.pixels)}
    text = {"type": "text", "text": job.order.question}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [image, text]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    length = inputs["input_ids"].shape[1]
    whole = await answered(engine, job)
    assert whole.text == processor.tokenizer.decode(made[0, length:]).strip()
    assert whole.counts.input_tokens == length


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_batch_of_all_sizes_says_what_each_says_alone(
    engine: VlmEngine, family: str
) -> None:
    shapes = [(30, 30), (20, 130), (150, 20), (64, 64), (1, 7), (3, 3)]
    jobs = [
        replace(asking(family, "What? " * (1 + place)), pixels=picture(*shape, place))
        for place, shape in enumerate(shapes)
    ]
    alone = [await answered(engine, job) for job in jobs]
    together = await asyncio.gather(*(answered(engine, job) for job in jobs))
    assert [one.text for one in together] == [one.text for one in alone]
    assert max(engine.captioner(family).batches) > 1
    assert len({one.counts.input_tokens for one in alone}) > 1


@pytest.mark.parametrize(
    ("family", "dtype"), [("llava", "float16"), ("qwen", "bfloat16"), ("idefics", "bfloat16")]
)
async def test_half_precision(folders: dict[str, Path], family: str, dtype: str) -> None:
    async with opened(entry(folders[family], dtype=dtype)) as engine:
        first, second = await asyncio.gather(
            answered(engine, asking()), described(engine, describing(prefix="a photo of"))
        )
    assert (first.counts.output_tokens, second.counts.output_tokens) == (8, 8)


async def test_everything_that_was_said_changes_the_answer(engine: VlmEngine) -> None:
    sampling = TextSampling(max_tokens=24)
    plain = asking("qwen", sampling=sampling)
    others = [
        asking("qwen", sampling=sampling, history=[Turn("How many?", "Two.")]),
        asking("qwen", sampling=sampling, instructions="Be brief."),
        asking("qwen", "Which colours has it?", sampling=sampling),
        replace(plain, pixels=picture(seed=5)),
    ]
    texts = [(await answered(engine, job)).text for job in [plain, *others]]
    assert len(set(texts)) == 5


async def test_a_description_answers_its_prompt(folders: dict[str, Path]) -> None:
    options = {"device": "cpu", "caption_prompt": "What is it?"}
    async with opened(entry(folders["idefics"], options=options)) as engine:
        caption, answer = await described(engine, describing()), await answered(engine, asking())
        begun = await described(engine, describing(prefix="a photo of"))
    assert caption.texts == [answer.text]
    assert begun.counts.input_tokens == caption.counts.input_tokens + len(" a photo of")


async def test_what_the_template_has_no_place_for_is_refused_by_name(tmp_path: Path) -> None:
    write_llava(tmp_path, template=DEAF_TEMPLATE)
    async with opened(entry(tmp_path)) as engine:
        for changes in ({"history": [Turn("How many?", "Two.")]}, {"instructions": "Be brief."}):
            with pytest.raises(InvalidArgument) as caught:
                engine.check_question(asking(**changes).order)  # type: ignore[arg-type]
            assert caught.value.field in changes
        with pytest.raises(InvalidArgument) as caught:
            engine.check_description(describing(prefix="a photo of").order)
        assert caught.value.field == "prefix"
        assert (await answered(engine, asking())).text


@pytest.mark.parametrize(
    ("family", "token"), [("llava", "<image>"), ("qwen", "<|image_pad|>"), ("idefics", "<image>")]
)
async def test_control_tokens_of_callers_are_refused_by_name(
    engine: VlmEngine, family: str, token: str
) -> None:
    for changes, field in (
        ({"question": f"What is {token}?"}, "question"),
        ({"instructions": f"Say {token}"}, "instructions"),
        ({"history": [Turn("a", "b"), Turn("c", token)]}, "history[1].answer"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await answered(engine, asking(family, **changes))  # type: ignore[arg-type]
        assert caught.value.field == field
    with pytest.raises(InvalidArgument) as caught:
        await described(engine, describing(family, prefix=f"a {token}"))
    assert caught.value.field == "prefix"


async def test_the_window_is_a_bound(folders: dict[str, Path]) -> None:
    async with opened(entry(folders["llava"], context_length=60)) as engine:
        assert engine.models()[0].context_length == 60
        sampling = TextSampling(max_tokens=2048)
        whole = await answered(engine, asking(sampling=sampling))
        assert whole.finish_reason is FinishReason.LENGTH
        assert whole.counts.input_tokens + whole.counts.output_tokens == 60
        for job, field in (
            (asking(question="What? " * 20), "question"),
            (asking(history=[Turn("What? " * 10, "It.")]), "history"),
        ):
            with pytest.raises(InvalidArgument) as caught:
                await answered(engine, job)
            assert (caught.value.field, caught.value.reason) == (field, "CONTEXT_LENGTH_EXCEEDED")
            assert "60" in caught.value.message
        with pytest.raises(InvalidArgument) as caught:
            await described(engine, describing(prefix="a " * 40))
        assert caught.value.field == "prefix"


async def test_pictures_are_made_smaller_and_impossible_ones_refused(
    folders: dict[str, Path], engine: VlmEngine
) -> None:
    assert engine.captioner("qwen").context_length == WINDOW
    large = replace(asking("qwen"), pixels=picture(112, 112))
    options = {"device": "cpu", "max_side": 56}
    async with opened(entry(folders["qwen"], "qwen", options=options)) as small:
        fewer = (await answered(small, large)).counts.input_tokens
    assert (await answered(engine, large)).counts.input_tokens - fewer == 16 - 4
    line = replace(asking("qwen"), pixels=np.zeros((1, 500, 3), np.uint8))
    with pytest.raises(MediaError) as caught:
        await answered(engine, line)
    assert "500 x 1" in caught.value.message


@pytest.mark.parametrize("place", ["chat_template.json", "tokenizer_config.json"])
def test_templates_stand_where_older_folders_have_them(
    folders: dict[str, Path], tmp_path: Path, place: str
) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "old")
    template, file = folder / "chat_template.jinja", folder / place
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    content["chat_template"] = template.read_text(encoding="utf-8")
    file.write_text(json.dumps(content), encoding="utf-8")
    template.unlink()
    assert load_processor(folder).chat_template == content["chat_template"]


async def test_models_that_do_not_hold_fail_alone_and_say_why(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    no_picture = "{{ messages[0]['content'][1]['text'] }}"
    own_code = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    broken: dict[str, tuple[str, object, str]] = {
        "mute": ("chat_template.jinja", None, "no chat template"),
        "blind": ("chat_template.jinja", no_picture, "images"),
        "empty": ("model.safetensors", None, "model.safetensors"),
        "listener": ("processor_config.json", {"processor_class": "WhisperProcessor"}, "Whisper"),
        "stranger": ("config.json", own_code, "custom code"),
    }
    marker = tmp_path / "ran"
    for name, (file, content, _) in broken.items():
        folder = shutil.copytree(folders["llava"], tmp_path / name)
        (folder / file).unlink()
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / file).write_text(text, encoding="utf-8")
        (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    entries = [entry(tmp_path / name, name) for name in broken]
    async with opened(*entries, entry(folders["llava"], "good")) as engine:
        *failed, good = engine.models()
        assert good.state is ModelState.READY
        for info in failed:
            assert info.state is ModelState.FAILED
            assert broken[info.id][2] in info.detail
            with pytest.raises(Unavailable):
                engine.check_question(asking(info.id).order)
    assert not marker.exists(), "code that comes with weights is never run"
