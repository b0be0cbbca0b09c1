"""The parts of the captioning engine that are plain code: words, waits, plans, draws."""

import math
from collections.abc import Sequence

import pytest
import torch

from atrium_common.errors import InvalidArgument
from atrium_img2text.domain import TextSampling
from atrium_img2text.engines.captioning.budget import REGROW, RowBudget
from atrium_img2text.engines.captioning.choosing import choose_tokens, penalize
from atrium_img2text.engines.captioning.gathering import Gathering
from atrium_img2text.engines.captioning.model import ModelDefaults, Prepared
from atrium_img2text.engines.captioning.plan import GenerationPlan, plan_generation
from atrium_img2text.engines.captioning.request import Request, Row
from atrium_img2text.engines.captioning.text import TextWriter


class TestTextWriter:
    @staticmethod
    def _bytes(tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", errors="replace")

    @pytest.mark.parametrize("said", ["naïve", "日本語 です", "a 🦊 and 👩‍🚀 b", "é"])
    def test_never_gives_half_a_character(self, said: str) -> None:
        writer = TextWriter(self._bytes)
        given = [writer.push(byte) for byte in said.encode()]
        assert all("\N{REPLACEMENT CHARACTER}" not in text for text in given)
        assert "".join(given) + writer.finish() == said == writer.text

    def test_gives_what_is_broken_in_the_end(self) -> None:
        writer = TextWriter(self._bytes)
        given = [writer.push(byte) for byte in b"a\xf0\x9f"]
        assert "".join(given) == "a"
        assert writer.finish() == "\N{REPLACEMENT CHARACTER}"

    def test_gives_no_space_around_the_text(self) -> None:
        writer = TextWriter(self._bytes)
        given = [writer.push(byte) for byte in b"\n  a  b \n"]
        assert given == ["", "", "", "a", "", "", "  b", "", ""]
        assert writer.finish() == ""
        assert writer.text == "a  b"

    def test_reads_a_token_beside_its_neighbours(self) -> None:
        """As sentencepiece: a word begins with a space, but not the first one of a text."""
        words = ["two", "blue", "stars"]
        writer = TextWriter(lambda tokens: " ".join(words[token] for token in tokens))
        assert [writer.push(token) for token in range(3)] == ["two", " blue", " stars"]

    def test_decodes_only_the_newest_tokens(self) -> None:
        longest = 0

        def decode(tokens: Sequence[int]) -> str:
            nonlocal longest
            longest = max(longest, len(tokens))
            return self._bytes(tokens)

        writer = TextWriter(decode)
        for _ in range(500):
            writer.push(ord("a"))
        assert longest <= 3


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestGathering:
    def _after(self, rows: int, took: float = 1.0) -> tuple[Gathering, _Clock]:
        clock = _Clock()
        gathering = Gathering(clock=clock)
        gathering.patience(1, 16)
        gathering.started()
        clock.now += took
        gathering.ended(rows, took)
        return gathering, clock

    def test_the_first_request_starts_at_once(self) -> None:
        assert Gathering(clock=_Clock()).patience(1, 16) == 0

    def test_a_lone_caller_never_waits(self) -> None:
        gathering, _ = self._after(rows=1)
        assert gathering.patience(1, 16) == 0

    def test_those_who_were_many_are_waited_for(self) -> None:
        gathering, clock = self._after(rows=8)
        patience = gathering.patience(1, 16)
        assert 0 < patience <= 0.005
        clock.now += patience / 2
        assert gathering.patience(5, 16) == pytest.approx(patience / 2), "arrivals do not renew it"
        assert gathering.patience(8, 16) == 0, "all are there"

    def test_waiting_ends(self) -> None:
        gathering, clock = self._after(rows=8)
        clock.now += gathering.patience(1, 16)
        assert gathering.patience(2, 16) == 0

    def test_a_full_batch_starts_at_once(self) -> None:
        gathering, _ = self._after(rows=8)
        assert gathering.patience(4, 4) == 0

    def test_after_a_pause_nobody_is_waited_for(self) -> None:
        gathering, clock = self._after(rows=8)
        clock.now += 2.0
        assert gathering.patience(1, 16) == 0

    def test_short_batches_are_waited_for_shortly(self) -> None:
        gathering, _ = self._after(rows=8, took=0.01)
        assert gathering.patience(1, 16) <= 0.1 * 0.01 + 1e-9


def test_a_halved_budget_grows_back() -> None:
    budget = RowBudget(16)
    budget.shrink(12)
    assert budget.rows == 6
    budget.shrink(1)
    assert budget.rows == 1
    for _ in range(REGROW):
        budget.succeeded()
    assert budget.rows == 2
    for _ in range(10 * REGROW):
        budget.succeeded()
    assert budget.rows == 16


def _planned(
    sampling: TextSampling, defaults: ModelDefaults | None = None, *, candidates: int = 1
) -> GenerationPlan:
    return plan_generation(
        sampling, defaults or ModelDefaults(), candidates=candidates, max_tokens=64
    )


class TestPlan:
    def test_without_anything_the_likeliest_words_are_taken(self) -> None:
        plan = _planned(TextSampling())
        assert (plan.max_tokens, plan.temperature, plan.beams) == (64, 0.0, 1)
        assert (plan.top_p, plan.repetition_penalty) == (1.0, 1.0)

    def test_a_models_own_defaults_fill_in(self) -> None:
        defaults = ModelDefaults(max_tokens=20, temperature=0.7, top_p=0.9, repetition_penalty=1.2)
        plan = _planned(TextSampling(), defaults)
        assert (plan.max_tokens, plan.temperature, plan.top_p) == (20, 0.7, 0.9)
        assert plan.repetition_penalty == 1.2

    def test_beams_that_are_asked_for_win_over_a_default_temperature(self) -> None:
        plan = _planned(TextSampling(beams=4), ModelDefaults(temperature=0.7))
        assert (plan.beams, plan.temperature) == (4, 0.0)

    def test_a_temperature_that_is_asked_for_wins_over_default_beams(self) -> None:
        plan = _planned(TextSampling(temperature=0.5), ModelDefaults(beams=5))
        assert (plan.beams, plan.temperature) == (1, 0.5)
        assert _planned(TextSampling(), ModelDefaults(beams=5)).beams == 5

    @pytest.mark.parametrize(
        ("sampling", "candidates", "field"),
        [
            (TextSampling(beams=2, temperature=0.5), 1, "sampling.beams"),
            (TextSampling(top_p=0.5), 1, "sampling.top_p"),
            (TextSampling(), 2, "n"),
            (TextSampling(beams=2), 3, "n"),
        ],
    )
    def test_contradictions_are_refused(
        self, sampling: TextSampling, candidates: int, field: str
    ) -> None:
        with pytest.raises(InvalidArgument) as caught:
            _planned(sampling, candidates=candidates)
        assert caught.value.field == field


def _row(said: Sequence[int] = (), **sampling: float) -> Row:
    plan = _planned(TextSampling(**sampling))  # type: ignore[arg-type]
    prepared = Prepared(features={}, input_tokens=1, room=99)
    row = Request.of(prepared, plan, lambda tokens: str(tokens)).rows[0]
    row.tokens.extend(said)
    return row


class TestChoosing:
    def test_greedy_takes_the_likeliest_and_tells_its_probability(self) -> None:
        logits = torch.tensor([[0.0, 2.0, 1.0]])
        [(token, logprob)] = choose_tokens(logits.clone(), [_row()])
        assert token == 1
        assert logprob == pytest.approx(float(logits.log_softmax(-1)[0, 1]), rel=1e-6)

    def test_what_was_said_is_penalised_in_its_own_row_only(self) -> None:
        logits = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
        rows = [_row([1], repetition_penalty=4.0), _row([1]), _row(repetition_penalty=4.0)]
        chosen = choose_tokens(logits.clone(), rows)
        assert [token for token, _ in chosen] == [0, 1, 1]
        unpenalised = float(logits.log_softmax(-1)[0, 0])
        assert chosen[0][1] == pytest.approx(unpenalised, rel=1e-6), "as the model gave it"

    def test_negative_scores_are_penalised_downwards(self) -> None:
        scores = torch.tensor([-1.0, -1.5])
        penalize(scores, [0, 0], 2.0)
        assert scores.tolist() == [-2.0, -1.5]

    def test_draws_follow_the_distribution(self) -> None:
        probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
        rows = [_row(temperature=1.0, seed=seed) for seed in range(4000)]
        logits = probabilities.log().repeat(len(rows), 1)
        drawn = [token for token, _ in choose_tokens(logits, rows)]
        for token, probability in enumerate(probabilities.tolist()):
            spread = math.sqrt(probability * (1 - probability) / len(drawn))
            assert abs(drawn.count(token) / len(drawn) - probability) < 5 * spread

    def test_the_nucleus_cuts_the_tail_and_keeps_the_likeliest(self) -> None:
        logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
        row = _row(temperature=1.0, top_p=0.7, seed=5)
        assert {choose_tokens(logits.clone(), [row])[0][0] for _ in range(300)} == {0, 1}
        row = _row(temperature=1.0, top_p=1e-9, seed=5)
        assert {choose_tokens(logits.clone(), [row])[0][0] for _ in range(50)} == {0}

    def test_a_seed_repeats_whoever_is_beside(self) -> None:
        logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
        alone = _row(temperature=1.2, top_p=0.8, seed=7)
        told = [choose_tokens(logits[2:3].clone(), [alone])[0] for _ in range(8)]
        rows = [
            _row(temperature=0.4, seed=1),
            _row(),
            _row(temperature=1.2, top_p=0.8, seed=7),
            _row(temperature=2.0, top_p=0.5, seed=7),
            _row(repetition_penalty=1.5),
            _row(temperature=0.9),
        ]
        together = [choose_tokens(logits.clone(), rows)[2] for _ in range(8)]
        assert [token for token, _ in together] == [token for token, _ in told]

    def test_candidates_of_one_seed_differ(self) -> None:
        plan = _planned(TextSampling(temperature=1.0, seed=3), candidates=4)
        request = Request.of(Prepared(features={}, input_tokens=1, room=9), plan, str)
        drawn = [row.draws.next() for row in request.rows]
        assert len(set(drawn)) == 4
