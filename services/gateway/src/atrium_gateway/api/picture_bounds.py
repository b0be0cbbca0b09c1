"""Upper bounds of what pictures may consume; admission reserves them.

The gateway knows a model's sizes and steps by the catalogue: the options `native_width`,
`native_height`, `max_pixels` and `default_steps` of its entry. Where it does not say, the
wire's defaults stand in; the service refuses what the model can't do, and settled is what
was done.
"""

from dataclasses import dataclass

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Usage
from atrium_gateway.upstreams.pictures import Drawing, Edit

NATIVE_SIDE = 1024
MAX_PIXELS = 4 << 20
DEFAULT_STEPS = 30
DEFAULT_STRENGTH = 0.6
"""Of edits; as `atrium.img2img.v1.EditConfig` says."""
_PIXELS_PER_MILLIMEGAPIXEL = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSizes:
    """What the catalogue says of a picture model; pixels, and steps over all noise.

    Steps are ``None`` where it does not say, as for a provider's model that takes none.
    """

    native_width: int
    native_height: int
    max_pixels: int
    default_steps: int | None


def known_sizes(entry: ModelEntry) -> KnownSizes:
    """Reads the options of a model's entry."""

    def option(name: str) -> int | None:
        value = entry.options.get(name)
        return value if isinstance(value, int) and value > 0 else None

    width = option("native_width") or NATIVE_SIDE
    height = option("native_height") or width
    return KnownSizes(
        native_width=width,
        native_height=height,
        max_pixels=option("max_pixels") or max(MAX_PIXELS, width * height),
        default_steps=option("default_steps"),
    )


def drawing_bound(drawing: Drawing, known: KnownSizes) -> Usage:
    """Most that pictures from text may consume."""
    width, height = drawing.width or known.native_width, drawing.height or known.native_height
    return _bound(drawing, drawing.n, width * height, steps_taken(drawing, known), known)


def edit_bound(edit: Edit, uploads: int, known: KnownSizes) -> Usage:
    """Most that an edit may consume; the sizes of its uploads are not read for it."""
    given = edit.width * edit.height
    return _bound(
        edit, edit.n * uploads, given or known.max_pixels, steps_taken(edit, known), known
    )


def steps_taken(drawing: Drawing, known: KnownSizes) -> int:
    """Steps that each picture takes: an edit about strength times those asked for."""
    steps = drawing.denoising.steps or known.default_steps or DEFAULT_STEPS
    if not isinstance(drawing, Edit):
        return steps
    strength = DEFAULT_STRENGTH if drawing.strength is None else drawing.strength
    return max(1, min(int(steps * strength), steps)) if strength > 0 else 0


def _bound(drawing: Drawing, count: int, pixels: int, steps: int, known: KnownSizes) -> Usage:
    # What is larger than the model takes is refused by its service, by name: it must not
    # fail at a limit before.
    pixel_steps = count * min(pixels, known.max_pixels) * steps
    return Usage(
        model=drawing.model,
        images=count,
        millimegapixel_steps=-(-pixel_steps // _PIXELS_PER_MILLIMEGAPIXEL),
        estimated=True,
    )
