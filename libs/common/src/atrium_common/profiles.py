"""The profiles of the compose file, and the services that each starts.

The one place that says it: `atrium models pull` fetches what these services run, the preflight
check counts it, and a test holds the compose file to it. Which capabilities a service has is
said by its models' entries in the catalogue.
"""

from collections.abc import Iterable

PROFILES = {
    "text": ("llm",),
    "image": ("text2image", "img2img"),
    "speech": ("tts", "stt"),
    "vision": ("img2text",),
    "all": ("text2image", "img2img", "img2text", "tts", "stt", "llm"),
}
"""Compose profiles and the services that they start; a service's own name is one, too."""

SERVICES = PROFILES["all"]


def services_of(profiles: Iterable[str]) -> tuple[str, ...]:
    """Returns the services that these profiles start, in a fixed order.

    Profiles of other things (``edge``, ``observability``) start none.
    """
    started = {name for profile in profiles for name in PROFILES.get(profile, (profile,))}
    return tuple(name for name in SERVICES if name in started)
