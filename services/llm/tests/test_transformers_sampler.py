"""Each row of a batch is sampled by its own plan, and by nothing else in the batch."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atrium_common.domain import Usage
from atrium_common.errors import AtriumError, InternalError, InvalidArgument
from atrium_llm.domain import Sampling
from atrium_llm.engines.hf.attention import KeyValues
from atrium_llm.engines.hf.sampler import Picked, Sampler
from atrium_llm.engines.hf.sequence import Choice, Mailbox, Request
from atrium_llm.sampling import Defaults, Draws, plan_sampling
from atrium_llm.stopping import TextStream

WORDS = 3000


def choice(
    sampling: Sampling, said: tuple[int, ...] = (), prompt: tuple[int, ...] = (1,)
) -> Choice:
    """Makes a choice that has generated `said`."""
    plan = plan_sampling(sampling, Defaults(), vocabulary=WORDS)
    request = Request(
        number=0, prompt=prompt, plan=plan, limit=99, echo="", usage=Usage(), mailbox=Mailbox()
    )
    return Choice(
        request=request,
        index=0,
        tokens=[*prompt, *said],
        cache=KeyValues(1),
        draws=Draws(sampling.seed, 0),
        text=TextStream(),
        constraint=None,
        tools=None,
        generated=len(said),
        counts=Counter(said),
    )


def logits(rows: int = 1) -> torch.Tensor:
    """Makes logits that differ from row to row."""
    return torch.randn(rows, WORDS, generator=torch.Generator().manual_seed(5)) * 3


def tokens(picked: list[Picked | AtriumError]) -> list[int]:
    """Unwraps tokens that were picked without errors."""
    assert all(isinstance(one, Picked) for one in picked)
    return [one.token for one in picked if isinstance(one, Picked)]


PLANS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]),
    top_p=st.sampled_from([None, 0.1, 0.9, 0.9999]),
    top_k=st.sampled_from([None, 1, 7, 2000]),
    min_p=st.sampled_from([None, 0.05]),
    presence_penalty=st.sampled_from([None, 1.5]),
    repetition_penalty=st.sampled_from([None, 1.3]),
    top_logprobs=st.sampled_from([None, 0, 3]),
    seed=st.integers(0, 5),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(PLANS, min_size=2, max_size=5))
def test_a_row_does_not_depend_on_its_neighbours(plans: list[Sampling]) -> None:
    rows = logits(len(plans))
    together = Sampler([2]).pick(rows.clone(), [choice(p, (3, 4)) for p in plans])
    alone = [
        Sampler([2]).pick(rows[i : i + 1].clone(), [choice(p, (3, 4))])[0]
        for i, p in enumerate(plans)
    ]
    assert tokens(together) == tokens(alone)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0.05, 0.5, 0.9, 0.999]), st.sampled_from([0, 5, 50]), st.integers(0, 99))
def test_a_draw_lies_within_top_p_and_top_k(top_p: float, top_k: int, seed: int) -> None:
    row = logits()
    sampling = Sampling(temperature=1.0, top_p=top_p, top_k=top_k or None, seed=seed)
    token = tokens(Sampler([]).pick(row.clone(), [choice(sampling)]))[0]
    order = row[0].argsort(descending=True)
    rank = int((order == token).nonzero())
    if top_k:
        assert rank < top_k
        order = order[:top_k]
    before = row[0][order].softmax(-1)[:rank].sum()
    assert before < top_p + 1e-4


def test_draws_follow_the_distribution() -> None:
    row = torch.full((1, WORDS), -torch.inf)
    row[0, 10], row[0, 20] = 0.0, torch.tensor(3.0).log()
    one = choice(Sampling(temperature=1.0, seed=1))
    seen = Counter(tokens(Sampler([]).pick(row.clone(), [one]))[0] for _ in range(2000))
    assert set(seen) == {10, 20}
    assert seen[20] / 2000 == pytest.approx(0.75, abs=0.04)


def test_penalties_and_biases_change_what_is_likeliest() -> None:
    row = torch.zeros(1, WORDS)
    row[0, 5], row[0, 6], row[0, 7] = 3.0, 2.5, 2.0
    sampler = Sampler([2])

    def first(sampling: Sampling, said: tuple[int, ...] = ()) -> int:
        return tokens(
            sampler.pick(row.clone(), [choice(replace(sampling, temperature=0.0), said)])
        )[0]

    assert first(Sampling()) == 5
    assert first(Sampling(presence_penalty=1.0), (5,)) == 6
    assert first(Sampling(frequency_penalty=0.8), (5, 5, 6)) == 7
    assert first(Sampling(repetition_penalty=1.9), (5, 6)) == 7
    assert first(Sampling(logit_bias={9: 50.0})) == 9
    assert first(Sampling(logit_bias={5: -100.0})) == 6


def test_min_tokens_forbids_the_end() -> None:
    row = torch.zeros(1, WORDS)
    row[0, 2], row[0, 8] = 9.0, 1.0
    assert tokens(Sampler([2]).pick(row.clone(), [choice(Sampling(temperature=0.0))])) == [2]
    waiting = choice(Sampling(temperature=0.0, min_tokens=1))
    assert tokens(Sampler([2]).pick(row.clone(), [waiting])) == [8]


def test_logprobs_are_those_before_temperature_and_masks() -> None:
    row = logits()
    sampling = Sampling(temperature=0.0, top_logprobs=2, logit_bias={17: 100.0})
    picked = Sampler([]).pick(row.clone(), [choice(sampling)])[0]
    assert isinstance(picked, Picked)
    assert picked.token == 17
    expected = row[0].log_softmax(-1)
    assert picked.logprob == pytest.approx(float(expected[17]), abs=1e-5)
    assert [token for token, _ in picked.top] == expected.topk(2).indices.tolist()


def test_an_error_in_one_row_is_its_own() -> None:
    class Broken:
        def allowed(self) -> bytes:
            raise InternalError("broken")

    bad = choice(Sampling(temperature=0.0))
    bad.constraint = Broken()  # type: ignore[assignment]
    good = choice(Sampling(temperature=0.0))
    rows = logits(2)
    picked = Sampler([]).pick(rows.clone(), [bad, good])
    assert isinstance(picked[0], InternalError)
    assert tokens(picked[1:]) == [int(rows[1].argmax())]


def test_a_bias_of_an_unknown_token_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument) as caught:
        choice(Sampling(logit_bias={WORDS: 1.0}))
    assert caught.value.field == "job.sampling.logit_bias"
