"""Checks what both picture services take in a request alike, and makes its job.

Their `convert.py` calls `new_job`; ranges are those of the protos' comments. What depends
on the model is checked by the engine's `plan`.
"""

from atrium_common.errors import InvalidArgument
from atrium_diffusion.domain import Denoising, PictureJob, PreviewOptions

MAX_PROMPT = 4000
"""Characters of a prompt."""
MAX_PICTURES = 16
"""Of a request, in all."""
MAX_PRIORITY = 2
_LAST_SEED = 2**63 - 1


def new_job(
    *,
    model: str,
    prompt: str,
    negative_prompt: str,
    n: int,
    denoising: Denoising,
    preview: PreviewOptions,
    priority: int,
    truncate_prompt: bool,
    uploads: int = 1,
) -> PictureJob:
    """Makes a job of checked parts; the caller adds sizes or sources.

    Args:
        model: Catalogue id.
        prompt: As it came; so are the following.
        negative_prompt: What to avoid.
        n: Pictures, of each upload where there are uploads.
        denoising: Checked by `wire`, as is `preview`.
        preview: What is shown on the way.
        priority: Among the tenant's own requests.
        truncate_prompt: Whether prompts may be cut.
        uploads: Pictures that are edited; 1 for a picture from text.

    Raises:
        InvalidArgument: A value is out of its range; `field` names it.
    """
    if not prompt.strip():
        raise InvalidArgument("prompt is blank.", reason="EMPTY_PROMPT", field="prompt")
    for field, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if len(text) > MAX_PROMPT:
            raise InvalidArgument(
                f"{field} has {len(text)} characters, at most {MAX_PROMPT} are taken.",
                reason="PROMPT_TOO_LONG",
                field=field,
            )
    if not 1 <= n <= MAX_PICTURES:
        raise InvalidArgument(f"n is from 1 to {MAX_PICTURES}.", field="n")
    if n * uploads > MAX_PICTURES:
        raise InvalidArgument(f"A request makes at most {MAX_PICTURES} pictures.", field="n")
    if denoising.seed is not None and denoising.seed > _LAST_SEED - n * uploads + 1:
        raise InvalidArgument(
            "seed leaves no room for the seeds of the pictures after it.", field="denoising.seed"
        )
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise InvalidArgument(
            f"priority is from -{MAX_PRIORITY} to {MAX_PRIORITY}.", field="priority"
        )
    return PictureJob(
        model=model,
        prompt=prompt,
        negative_prompt=negative_prompt,
        n=n,
        denoising=denoising,
        preview=preview,
        priority=priority,
        truncate_prompt=truncate_prompt,
    )
