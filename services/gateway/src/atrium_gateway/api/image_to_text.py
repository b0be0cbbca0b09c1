"""`POST /api/image-to-text`: captions, answers and text of one picture, in one upload."""

from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.seeing import Work, extraction_of, resolve, seeing_job
from atrium_gateway.api.seeing_answers import reply, stream
from atrium_gateway.api.seeing_names import Names
from atrium_gateway.api.seeing_schema import ImageToTextForm, ImageToTextJson
from atrium_gateway.api.seeing_uploads import received
from atrium_gateway.upstreams.seeing import Description, Question, QuestionTurn, TextSampling

_SAMPLING = ("max_tokens", "temperature", "top_p", "beams", "seed", "repetition_penalty")
_CAPTION = ("prefix", "prompt", "n")
_QUESTION = ("question", "questions", "history", "instructions")
_READING = (
    "ocr_model",
    "languages",
    "layout",
    "correct_orientation",
    "document_format",
    "first_page",
    "max_pages",
    "resolution",
    "min_confidence",
)
_FOREIGN = {
    "caption": (*_QUESTION, *_READING),
    "vqa": (*_CAPTION, *_READING),
    "ocr": ("model", *_SAMPLING, *_CAPTION, *_QUESTION),
    "all": (),
}
"""Parameters that a task has no use for."""


async def create_image_to_text(exchange: Exchange) -> None:
    """Describes, answers, reads: as JSON, or as events."""
    principal = await exchange.authenticate()
    async with received(exchange, ImageToTextForm, ImageToTextJson) as (picture, request):
        _check(request)
        work = _work(exchange, request)
        if work.reader is not None:
            # Admission asks for the model that the whole counts as.
            principal.demand_model(work.reader.id)
        names = Names(picture.name, _renamed(request))
        async with exchange.until_disconnect():
            job = seeing_job(exchange.gateway, work, await picture.opened(exchange))
            answer = stream if request.stream else reply
            await answer(exchange, principal, job, work, names)


def _check(request: ImageToTextForm) -> None:
    """Refuses what does not belong to the task, or contradicts itself."""
    for name in _FOREIGN[request.task]:
        if getattr(request, name) is not None:
            raise InvalidArgument(f"The task '{request.task}' has no '{name}'.", field=name)
    for name, other in (("prefix", "prompt"), ("question", "questions")):
        if getattr(request, name) is not None and getattr(request, other) is not None:
            raise InvalidArgument(f"Give either '{name}' or '{other}', not both.", field=other)
    if request.question is not None or request.questions is not None:
        return
    if request.task == "vqa":
        raise InvalidArgument(
            "Missing required parameter: 'question'.",
            reason="MISSING_REQUIRED_PARAMETER",
            field="question",
        )
    for name in ("history", "instructions"):
        if getattr(request, name) is not None:
            raise InvalidArgument(f"'{name}' needs a question.", field=name)


def _work(exchange: Exchange, request: ImageToTextForm) -> Work:
    if request.task == "ocr":
        eyes = None
    else:
        eyes = resolve(exchange, request.model, Capability.IMAGE_TO_TEXT)
    reader = None
    if request.task in ("ocr", "all"):
        reader = resolve(exchange, request.ocr_model, Capability.OCR, field="ocr_model")
    description = None
    if eyes and request.task in ("caption", "all"):
        description = Description(
            model=eyes.id,
            prefix=request.prefix or request.prompt or "",
            n=request.n,
            sampling=_sampling(request),
        )
    return Work(
        task=request.task,
        eyes=eyes,
        reader=reader,
        description=description,
        questions=_questions(request, eyes.id) if eyes else (),
        extraction=extraction_of(request, reader, request.document_format) if reader else None,
    )


def _questions(request: ImageToTextForm, model: str) -> list[Question]:
    asked = request.questions or ([request.question] if request.question else [])
    history = [
        QuestionTurn(question=turn.question, answer=turn.answer) for turn in request.history or ()
    ]
    return [
        Question(
            model=model,
            question=question,
            history=history,
            instructions=request.instructions or "",
            sampling=_sampling(request),
        )
        for question in asked
    ]


def _sampling(request: ImageToTextForm) -> TextSampling:
    return TextSampling(**{name: getattr(request, name) for name in _SAMPLING})


def _renamed(request: ImageToTextForm) -> dict[str, str]:
    renamed = {"extraction.model": "ocr_model"}
    if request.task == "ocr":
        renamed["model"] = "ocr_model"
    if request.prompt is not None:
        renamed["prefix"] = "prompt"
    if request.questions is not None:
        renamed["question"] = "questions[{}]"
    return renamed
