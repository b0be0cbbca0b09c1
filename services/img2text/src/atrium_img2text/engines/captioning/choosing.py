"""From logits to tokens, each row by its own request's plan. Batches call it once per step.

`generate` itself always takes the likeliest token: what is likeliest is decided here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from atrium_img2text.engines.captioning.request import Row


def choose_tokens(logits: Tensor, rows: Sequence[Row]) -> list[tuple[int, float]]:
    """Chooses a token for each row.

    Args:
        logits: ``[rows, vocabulary]``, float32; changed in place.
        rows: Whose they are.

    Returns:
        Tokens and the natural logarithms of their probabilities before anything was changed.
    """
    normalizer = logits.logsumexp(-1)
    plain = logits
    if any(row.request.plan.repetition_penalty != 1 for row in rows):
        plain = logits.clone()
        for logit, row in zip(logits, rows, strict=True):
            penalize(logit, row.tokens, row.request.plan.repetition_penalty)
    tokens = logits.argmax(-1)
    drawn = [at for at, row in enumerate(rows) if row.request.plan.temperature > 0]
    if drawn:
        tokens[drawn] = _draw(logits[drawn], [rows[at] for at in drawn])
    logprobs = plain.gather(1, tokens[:, None])[:, 0] - normalizer
    return list(zip(tokens.tolist(), logprobs.tolist(), strict=True))


def penalize(scores: Tensor, said: Sequence[int], penalty: float) -> None:
    """Makes tokens that were said less likely, in place (Keskar et al. 2019, CTRL, 4.1).

    Args:
        scores: ``[vocabulary]``, logits or log probabilities.
        said: Tokens; one that was said often counts once.
        penalty: Above 1 forbids repetition, below 1 invites it, 1 is off.
    """
    if penalty == 1 or not said:
        return
    ids = torch.tensor(sorted(set(said)), device=scores.device)
    values = scores[ids]
    scores[ids] = torch.where(values > 0, values / penalty, values * penalty)


def _draw(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Draws within each row's nucleus (Holtzman et al. 2019) by its own random number."""
    temperature = logits.new_tensor([row.request.plan.temperature for row in rows])
    top_p = logits.new_tensor([row.request.plan.top_p for row in rows])
    ordered, ids = (logits / temperature[:, None]).sort(dim=-1, descending=True, stable=True)
    weights = ordered.softmax(-1)
    before = weights.cumsum(-1) - weights
    # The likeliest token stays even where rounding puts its own weight before it.
    outside = before >= top_p[:, None]
    outside[:, 0] = False
    total = weights.masked_fill(outside, 0.0).cumsum(-1)
    at = logits.new_tensor([[row.draws.next()] for row in rows]) * total[:, -1:]
    place = torch.searchsorted(total, at, right=True).clamp(max=logits.shape[1] - 1)
    return ids.gather(1, place)[:, 0]
