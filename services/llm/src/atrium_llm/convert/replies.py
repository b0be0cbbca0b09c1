"""What engines give, as messages of the wire."""

from collections.abc import Iterable, Sequence

from atrium.llm.v1 import llm_pb2 as pb
from atrium_llm.domain import ChoiceDelta, FinishReason, RankedDocument, TokenLogprob, ToolCall

_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
    FinishReason.CONTENT_FILTER: pb.FINISH_REASON_CONTENT_FILTER,
}


def delta_to_proto(delta: ChoiceDelta) -> pb.ChoiceDelta:
    """Makes one delta of a StreamGenerateText message."""
    wire = pb.ChoiceDelta(index=delta.index, text=delta.text)
    if delta.tool_calls:
        wire.tool_calls.extend(_tool_calls(delta.tool_calls))
    if delta.logprobs:
        wire.logprobs.extend(_logprobs(delta.logprobs))
    if delta.finish_reason is not None:
        wire.finish_reason = _REASONS[delta.finish_reason]
        wire.stop = delta.stop or ""
    return wire


class AnswerBuilder:
    """Gathers the deltas of a stream into whole choices, for GenerateText."""

    def __init__(self) -> None:
        self._choices: dict[int, pb.Choice] = {}
        self._texts: dict[int, list[str]] = {}

    def add(self, delta: ChoiceDelta) -> None:
        """Appends a delta to its choice."""
        choice = self._choices.get(delta.index)
        if choice is None:
            choice = self._choices[delta.index] = pb.Choice(index=delta.index)
            self._texts[delta.index] = []
        self._texts[delta.index].append(delta.text)
        if delta.tool_calls:
            choice.tool_calls.extend(_tool_calls(delta.tool_calls))
        if delta.logprobs:
            choice.logprobs.extend(_logprobs(delta.logprobs))
        if delta.finish_reason is not None:
            choice.finish_reason = _REASONS[delta.finish_reason]
            choice.stop = delta.stop or ""

    def choices(self) -> list[pb.Choice]:
        """Returns the choices so far, by index."""
        for index, choice in self._choices.items():
            choice.text = "".join(self._texts[index])
        return [self._choices[index] for index in sorted(self._choices)]


def _tool_calls(calls: Sequence[ToolCall]) -> Iterable[pb.ToolCall]:
    return (pb.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in calls)


def _logprobs(logprobs: Sequence[TokenLogprob]) -> Iterable[pb.TokenLogprob]:
    return (
        pb.TokenLogprob(
            token_id=item.token_id,
            token=item.token,
            token_bytes=item.token_bytes,
            logprob=item.logprob,
            top=_logprobs(item.top),
        )
        for item in logprobs
    )


def embeddings_to_proto(vectors: Sequence[Sequence[float]]) -> list[pb.Embedding]:
    """Makes the vectors of an EmbedText reply."""
    return [pb.Embedding(values=vector) for vector in vectors]


def ranking_to_proto(results: Sequence[RankedDocument]) -> list[pb.RankedDocument]:
    """Makes the results of a RerankDocuments reply."""
    return [pb.RankedDocument(index=result.index, score=result.score) for result in results]
