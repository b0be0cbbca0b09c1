"""Plans a speech: reads the input and cuts it into what is said one after the other."""

from atrium_common.errors import InvalidArgument
from atrium_tts.domain import Utterance
from atrium_tts.text.characters import speakable
from atrium_tts.text.plain import read_characters, read_plain
from atrium_tts.text.run import Run
from atrium_tts.text.ssml import read_ssml
from atrium_tts.text.utterances import utterance_of, utterances_of


def plan_speech(
    input: str,
    *,
    ssml: bool,
    language: str,
    whole: bool = False,
    longest: int = 300,
) -> tuple[Utterance, ...]:
    """Turns an input into utterances; each is spoken by itself.

    Args:
        input: Plain text, or SSML if `ssml`.
        ssml: Which of the two it is.
        language: BCP 47, what the input is in; ``""`` is taken for English.
        whole: Make one utterance of everything, for engines that want a text whole.
        longest: Code points that an utterance may have, unless `whole`. At least 1.

    Returns:
        At least one, in the order of the input; their spans do not overlap.

    Raises:
        InvalidArgument: There is nothing to say (reason ``EMPTY_TEXT``), a character
            is none, or the SSML goes beyond the subset; `field` is ``"text"`` or
            ``"ssml"``.
    """
    if ssml:
        runs = read_ssml(input, language=language, whole=whole, longest=longest)
    elif whole:
        runs = [read_characters(input, field="text")]
    else:
        runs = read_plain(input)
    made = (_whole(runs),) if whole else utterances_of(runs, language=language, longest=longest)
    spoken = tuple(one for one in made if one is not None)
    if not spoken:
        raise InvalidArgument(
            "There is nothing to say: no letter and no digit.",
            reason="EMPTY_TEXT",
            field="ssml" if ssml else "text",
        )
    return spoken


def _whole(runs: list[Run]) -> Utterance | None:
    everything = Run(language=runs[0].language if runs else "")
    for run in runs:
        everything.extend(run)
    if not speakable(everything.text):
        return None
    return utterance_of(everything, 0, len(everything.text))
