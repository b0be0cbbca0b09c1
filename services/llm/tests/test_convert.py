"""Every field of a request arrives as it was sent, or is refused by its name."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrium.llm.v1 import llm_pb2 as pb
from atrium_common.errors import InvalidArgument
from atrium_llm import convert
from atrium_llm.domain import (
    ChatInput,
    ChatMessage,
    ChoiceDelta,
    FinishReason,
    GenerationJob,
    ImagePart,
    JsonObject,
    JsonSchema,
    PromptInput,
    Role,
    Sampling,
    TextInput,
    TextPart,
    TokenInput,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolMode,
)

PNG = b"\x89PNG\r\n\x1a\n rest"


def valid_job() -> pb.GenerationJob:
    """Makes the smallest job that holds."""
    job = pb.GenerationJob()
    message = job.chat.messages.add(role=pb.ROLE_USER)
    message.content.add(text="hi")
    return job


def sampling(name: str, value: object) -> Callable[[pb.GenerationJob], None]:
    return lambda job: setattr(job.sampling, name, value)


def message(**fields: object) -> Callable[[pb.GenerationJob], None]:
    def change(job: pb.GenerationJob) -> None:
        job.chat.messages.append(pb.ChatMessage(**fields))  # type: ignore[arg-type]

    return change


def tool(**fields: object) -> Callable[[pb.GenerationJob], None]:
    def change(job: pb.GenerationJob) -> None:
        job.chat.tools.append(pb.Tool(**fields))  # type: ignore[arg-type]

    return change


def merged(**fields: object) -> Callable[[pb.GenerationJob], None]:
    def change(job: pb.GenerationJob) -> None:
        job.MergeFrom(pb.GenerationJob(**fields))  # type: ignore[arg-type]

    return change


TEXT = [pb.ContentPart(text="x")]
CALL = pb.ToolCall(id="1", name="f", arguments="{}")
NAN, INFINITY = float("nan"), float("inf")
REFUSED: list[tuple[str, Callable[[pb.GenerationJob], None]]] = [
    *((f"job.sampling.{name}", sampling(name, value)) for name, value in [
        ("max_tokens", 0), ("max_tokens", -1),
        ("temperature", -0.1), ("temperature", 2.1), ("temperature", NAN),
        ("top_p", 0.0), ("top_p", 1.1), ("top_p", NAN),
        ("top_k", 0), ("min_p", -0.1), ("min_p", 1.1),
        ("presence_penalty", -2.1), ("presence_penalty", 2.1), ("presence_penalty", INFINITY),
        ("frequency_penalty", -2.1), ("frequency_penalty", 2.1),
        ("repetition_penalty", 0.0), ("repetition_penalty", 2.1),
        ("n", 0), ("n", 17), ("top_logprobs", -1), ("top_logprobs", 21), ("min_tokens", -1),
    ]),
    ("job.sampling.stop", merged(sampling=pb.SamplingParams(stop=["x"] * 17))),
    ("job.sampling.stop[0]", merged(sampling=pb.SamplingParams(stop=[""]))),
    ("job.sampling.stop[1]", merged(sampling=pb.SamplingParams(stop=["a", "x" * 257]))),
    ("job.sampling.logit_bias", merged(
        sampling=pb.SamplingParams(logit_bias=dict.fromkeys(range(1025), 0.0)))),
    ("job.sampling.logit_bias[7]", merged(sampling=pb.SamplingParams(logit_bias={7: 101}))),
    ("job.sampling.logit_bias[7]", merged(sampling=pb.SamplingParams(logit_bias={7: NAN}))),
    ("job.sampling.logit_bias[-1]", merged(sampling=pb.SamplingParams(logit_bias={-1: 1}))),
    ("job.sampling.min_tokens", merged(sampling=pb.SamplingParams(min_tokens=9, max_tokens=8))),
    ("job.input", lambda job: job.ClearField("chat")),
    ("job.prompt", merged(prompt="")),
    ("job.prompt_ids.ids", merged(prompt_ids=pb.TokenIds())),
    ("job.prompt_ids.ids", merged(prompt_ids=pb.TokenIds(ids=[1, -1]))),
    ("job.echo", merged(echo=True)),
    ("job.echo", merged(prompt="x", echo=True, sampling=pb.SamplingParams(top_logprobs=1))),
    ("job.response_format.json_object", merged(
        response_format=pb.ResponseFormat(json_object=False))),
    *(("job.response_format.json_schema", merged(
        response_format=pb.ResponseFormat(json_schema=text)))
      for text in ("", "{", "[]", '{"type": "number-ish"}', "[" * 99_999, " " * 70_000)),
    ("job.chat.messages", lambda job: job.chat.ClearField("messages")),
    ("job.chat.messages[1].role", message(content=TEXT)),
    ("job.chat.messages[1].role", message(role=99, content=TEXT)),
    ("job.chat.messages[1].content", message(role=pb.ROLE_USER)),
    ("job.chat.messages[1].content[0]", message(role=pb.ROLE_USER, content=[pb.ContentPart()])),
    ("job.chat.messages[1].content[0].image", message(
        role=pb.ROLE_USER, content=[pb.ContentPart(image=b"GIF?")])),
    ("job.chat.messages[1].name", message(role=pb.ROLE_USER, content=TEXT, name="n" * 65)),
    ("job.chat.messages[1].tool_calls", message(
        role=pb.ROLE_USER, content=TEXT, tool_calls=[CALL])),
    ("job.chat.messages[1].tool_calls[0].id", message(
        role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(name="f")])),
    ("job.chat.messages[1].tool_calls[0].name", message(
        role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(id="1", name="a b")])),
    ("job.chat.messages[1].tool_calls[0].arguments", message(
        role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(id="1", name="f", arguments="[]")])),
    ("job.chat.messages[1].tool_call_id", message(role=pb.ROLE_TOOL, content=TEXT)),
    ("job.chat.messages[1].tool_call_id", message(
        role=pb.ROLE_USER, content=TEXT, tool_call_id="1")),
    ("job.chat.tools", merged(chat=pb.ChatInput(tools=[pb.Tool(name="f")] * 129))),
    ("job.chat.tools[0].name", tool(name="")),
    ("job.chat.tools[0].name", tool(name="x" * 65)),
    ("job.chat.tools[1].name", merged(chat=pb.ChatInput(tools=[pb.Tool(name="f")] * 2))),
    ("job.chat.tools[0].parameters", tool(name="f", parameters="{")),
    ("job.chat.tool_choice.mode", merged(
        chat=pb.ChatInput(tool_choice=pb.ToolChoice(mode=pb.ToolChoice.MODE_REQUIRED)))),
    ("job.chat.tool_choice.mode", merged(
        chat=pb.ChatInput(tool_choice=pb.ToolChoice(mode=77)))),  # type: ignore[arg-type]
    ("job.chat.tool_choice.name", merged(
        chat=pb.ChatInput(tool_choice=pb.ToolChoice(mode=pb.ToolChoice.MODE_NAMED, name="g")))),
    ("job.chat.tool_choice.name", merged(chat=pb.ChatInput(tool_choice=pb.ToolChoice(name="f")))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "change"), REFUSED, ids=[f"{n}-{field}" for n, (field, _) in enumerate(REFUSED)]
)
def test_out_of_range_is_refused_by_name(
    field: str, change: Callable[[pb.GenerationJob], None]
) -> None:
    job = valid_job()
    change(job)
    with pytest.raises(InvalidArgument) as caught:
        convert.generation_job(job, model="m")
    assert caught.value.field == field
    assert caught.value.message.startswith(field)


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("inputs", pb.EmbedTextRequest()),
        ("inputs", pb.EmbedTextRequest(inputs=[pb.EmbeddingInput(text="x")] * 2049)),
        ("inputs[0]", pb.EmbedTextRequest(inputs=[pb.EmbeddingInput()])),
        ("inputs[0].text", pb.EmbedTextRequest(inputs=[pb.EmbeddingInput(text="")])),
        ("inputs[0].ids.ids", pb.EmbedTextRequest(inputs=[pb.EmbeddingInput(ids=pb.TokenIds())])),
        (
            "dimensions",
            pb.EmbedTextRequest(inputs=[pb.EmbeddingInput(text="x")], dimensions=0),
        ),
        (
            "inputs",
            pb.EmbedTextRequest(inputs=[pb.EmbeddingInput(text="x")] * 2000, dimensions=1000),
        ),
    ],
)
def test_embedding_requests_are_refused_by_name(field: str, request_: pb.EmbedTextRequest) -> None:
    with pytest.raises(InvalidArgument) as caught:
        convert.embedding_job(request_, model="m")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("documents", pb.RerankDocumentsRequest(query="q")),
        ("documents", pb.RerankDocumentsRequest(query="q", documents=["d"] * 1025)),
        ("documents[1]", pb.RerankDocumentsRequest(query="q", documents=["d", ""])),
        ("query", pb.RerankDocumentsRequest(documents=["d"])),
        ("top_n", pb.RerankDocumentsRequest(query="q", documents=["d"], top_n=0)),
    ],
)
def test_ranking_requests_are_refused_by_name(
    field: str, request_: pb.RerankDocumentsRequest
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        convert.rerank_job(request_, model="m")
    assert caught.value.field == field


def optional(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | strategy


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
samplings = st.builds(
    Sampling,
    max_tokens=optional(st.integers(100, 2**31 - 1)),
    temperature=optional(st.floats(0, 2)),
    top_p=optional(st.floats(0, 1, exclude_min=True)),
    top_k=optional(st.integers(1, 2**31 - 1)),
    min_p=optional(st.floats(0, 1)),
    presence_penalty=optional(st.floats(-2, 2)),
    frequency_penalty=optional(st.floats(-2, 2)),
    repetition_penalty=optional(st.floats(0, 2, exclude_min=True)),
    seed=optional(st.integers(-(2**63), 2**63 - 1)),
    stop=st.lists(words, max_size=16).map(tuple),
    n=st.integers(1, 16),
    top_logprobs=optional(st.integers(0, 20)),
    logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), st.floats(-100, 100), max_size=5),
    min_tokens=st.integers(0, 100),
)
calls = st.builds(ToolCall, words, names, st.dictionaries(words, texts, max_size=2).map(json.dumps))
parts = st.builds(TextPart, texts) | st.just(ImagePart(PNG))
messages = st.one_of(
    st.builds(
        ChatMessage,
        role=st.sampled_from([Role.SYSTEM, Role.DEVELOPER, Role.USER]),
        content=st.lists(parts, min_size=1, max_size=3).map(tuple),
        name=st.none() | names,
    ),
    st.builds(
        ChatMessage,
        role=st.just(Role.ASSISTANT),
        tool_calls=st.lists(calls, min_size=1, max_size=2).map(tuple),
    ),
    st.builds(
        ChatMessage,
        role=st.just(Role.TOOL),
        content=st.tuples(st.builds(TextPart, texts)),
        tool_call_id=words,
    ),
)


@st.composite
def chats(draw: st.DrawFn) -> ChatInput:
    tools = [
        Tool(
            name=name,
            description=draw(texts),
            parameters=draw(st.sampled_from([None, {"type": "object"}])),
            strict=draw(st.booleans()),
        )
        for name in draw(st.lists(names, unique=True, max_size=3))
    ]
    modes = [ToolMode.NONE] + ([*ToolMode] if tools else [])
    mode = draw(st.sampled_from(modes))
    return ChatInput(
        messages=tuple(draw(st.lists(messages, min_size=1, max_size=3))),
        tools=tuple(tools),
        tool_mode=mode,
        tool_name=tools[0].name if mode is ToolMode.NAMED else None,
        parallel_tool_calls=draw(st.booleans()),
    )


formats = st.sampled_from([None, JsonObject(), JsonSchema({"type": "array"})])
inputs: st.SearchStrategy[PromptInput] = st.one_of(
    chats(),
    st.builds(TextInput, words),
    st.builds(TokenInput, st.lists(st.integers(0, 2**31 - 1), min_size=1).map(tuple)),
)


def to_wire(job: GenerationJob) -> pb.GenerationJob:
    """Writes a job the way a client does."""
    wire = pb.GenerationJob(model=job.model, echo=job.echo)
    if isinstance(job.input, TextInput):
        wire.prompt = job.input.text
    elif isinstance(job.input, TokenInput):
        wire.prompt_ids.ids.extend(job.input.ids)
    else:
        wire.chat.CopyFrom(_chat_to_wire(job.input))
    for name in Sampling.__dataclass_fields__:
        value = getattr(job.sampling, name)
        if name == "stop":
            wire.sampling.stop.extend(value)
        elif name == "logit_bias":
            wire.sampling.logit_bias.update(value)
        elif value is not None:
            setattr(wire.sampling, name, value)
    if isinstance(job.response_format, JsonObject):
        wire.response_format.json_object = True
    elif isinstance(job.response_format, JsonSchema):
        wire.response_format.json_schema = json.dumps(job.response_format.schema)
    return wire


def _chat_to_wire(chat: ChatInput) -> pb.ChatInput:
    wire = pb.ChatInput(parallel_tool_calls=chat.parallel_tool_calls)
    for one in chat.messages:
        added = wire.messages.add(
            role=pb.Role.Value(f"ROLE_{one.role.name}"),
            name=one.name or "",
            tool_call_id=one.tool_call_id or "",
        )
        for part in one.content:
            if isinstance(part, TextPart):
                added.content.add(text=part.text)
            else:
                added.content.add(image=part.data)
        for call in one.tool_calls:
            added.tool_calls.add(id=call.id, name=call.name, arguments=call.arguments)
    for offered in chat.tools:
        wire.tools.add(
            name=offered.name,
            description=offered.description,
            parameters=json.dumps(offered.parameters) if offered.parameters else "",
            strict=offered.strict,
        )
    wire.tool_choice.mode = pb.ToolChoice.Mode.Value(f"MODE_{chat.tool_mode.name}")
    wire.tool_choice.name = chat.tool_name or ""
    return wire


@settings(deadline=None)  # a busy machine is no defect
@given(inputs, samplings, formats)
def test_a_job_survives_the_wire(
    source: PromptInput, sampling: Sampling, shape: JsonObject | JsonSchema | None
) -> None:
    job = GenerationJob(model="m", input=source, sampling=sampling, response_format=shape)
    sent = pb.GenerationJob.FromString(to_wire(job).SerializeToString())
    assert convert.generation_job(sent, model="m") == job


@settings(deadline=None)  # a busy machine is no defect
@given(inputs, samplings)
def test_a_bound_covers_what_is_asked(source: PromptInput, sampling: Sampling) -> None:
    job = GenerationJob(model="m", input=source, sampling=sampling)
    bound = convert.generation_bound(job, context_length=4096)
    assert 0 < bound.input_tokens <= 4096
    assert bound.output_tokens == sampling.n * min(sampling.max_tokens or 4096, 4096)
    assert bound.estimated


logprobs = st.builds(
    TokenLogprob,
    token_id=st.integers(0, 9),
    token=texts,
    token_bytes=st.binary(max_size=4),
    logprob=st.floats(-50, 0),
)
deltas = st.builds(
    ChoiceDelta,
    index=st.integers(0, 3),
    text=texts,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    logprobs=st.lists(logprobs, max_size=2).map(tuple),
)


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(deltas, max_size=12), st.sampled_from(FinishReason), st.none() | words)
def test_deltas_add_up_to_choices(
    stream: list[ChoiceDelta], reason: FinishReason, stop: str | None
) -> None:
    stream = [*stream, ChoiceDelta(index=0, finish_reason=reason, stop=stop)]
    answer = convert.AnswerBuilder()
    for delta in stream:
        answer.add(delta)
    choices = answer.choices()
    assert [choice.index for choice in choices] == sorted({delta.index for delta in stream})
    for choice in choices:
        wire = [convert.delta_to_proto(delta) for delta in stream if delta.index == choice.index]
        assert choice.text == "".join(delta.text for delta in wire)
        assert list(choice.tool_calls) == [call for delta in wire for call in delta.tool_calls]
        assert list(choice.logprobs) == [item for delta in wire for item in delta.logprobs]
    assert choices[0].finish_reason == pb.FinishReason.Value(f"FINISH_REASON_{reason.name}")
    assert choices[0].stop == (stop or "")
