"""What a person may choose: the command line, and behind it the environment.

`main.py` reads it once. The variables are the ones that the services read by themselves, so a
`.env` file means the same to `make run` as to a service that is started by hand.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MODEL_SERVICES = ("llm", "stt", "tts", "text2image", "img2img", "img2text")
"""The services behind the gateway, in the order in which they are started."""

DEFAULT_PORTS = {
    "ATRIUM_GATEWAY_PORT": 8000,
    "ATRIUM_GATEWAY_ADMISSION_PORT": 8001,
    "ATRIUM_GATEWAY_METRICS_PORT": 9000,
    "ATRIUM_LLM_PORT": 7865,
    "ATRIUM_LLM_METRICS_PORT": 8865,
    "ATRIUM_STT_PORT": 7862,
    "ATRIUM_STT_METRICS_PORT": 8862,
    "ATRIUM_TTS_PORT": 7861,
    "ATRIUM_TTS_METRICS_PORT": 8861,
    "ATRIUM_TEXT2IMAGE_PORT": 7860,
    "ATRIUM_TEXT2IMAGE_METRICS_PORT": 8860,
    "ATRIUM_IMG2IMG_PORT": 7863,
    "ATRIUM_IMG2IMG_METRICS_PORT": 8863,
    "ATRIUM_IMG2TEXT_PORT": 7864,
    "ATRIUM_IMG2TEXT_METRICS_PORT": 8864,
}


@dataclass(frozen=True, slots=True)
class Options:
    """One start of the suite.

    Attributes:
        services: Names out of `MODEL_SERVICES`.
        catalogue: Catalogue file.
        state: Folder for everything that the suite writes.
        models: Folder of the weights; may be shared between states.
        ports: Variable -> port, for the gateway and for `services`.
        start_seconds: Longest wait until a service is ready.
        drain_seconds: Time that running requests get when the suite stops.
    """

    services: tuple[str, ...]
    catalogue: Path
    state: Path
    models: Path
    ports: Mapping[str, int]
    start_seconds: float
    drain_seconds: float


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Reads the options; prints usage and leaves with status 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="make run", description="Starts the gateway and its services on this machine."
    )
    parser.add_argument(
        "--services",
        default=",".join(MODEL_SERVICES),
        help="services to start beside the gateway, with commas (default: %(default)s)",
    )
    parser.add_argument(
        "--catalogue",
        type=Path,
        default=Path(environment.get("ATRIUM_CATALOGUE") or "models/starter.yaml"),
        help="the models to serve (default: %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(environment.get("ATRIUM_STATE_DIR") or ".atrium"),
        help="folder for all that the suite writes (default: %(default)s)",
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=environment.get("ATRIUM_MODELS_DIR") or None,
        help="folder of the weights (default: models in the state folder)",
    )
    parser.add_argument("--port", type=int, help="port of the REST API (default: 8000)")
    parser.add_argument(
        "--start-seconds",
        type=float,
        default=300.0,
        help="longest wait until a service is ready (default: %(default)s)",
    )
    parsed = parser.parse_args(arguments)
    services = tuple(dict.fromkeys(name for name in parsed.services.split(",") if name))
    if unknown := sorted(set(services) - set(MODEL_SERVICES)):
        parser.error(f"no such service: {', '.join(unknown)}")
    try:
        ports = _ports(services, environment, parsed.port)
        drain_seconds = float(environment.get("ATRIUM_DRAIN_SECONDS") or 20.0)
    except ValueError as err:
        parser.error(str(err))
    return Options(
        services=services,
        catalogue=parsed.catalogue,
        state=parsed.state,
        models=Path(parsed.models or parsed.state / "models"),
        ports=ports,
        start_seconds=parsed.start_seconds,
        drain_seconds=drain_seconds,
    )


def _ports(
    services: Sequence[str], environment: Mapping[str, str], rest_port: int | None
) -> dict[str, int]:
    given = dict(environment)
    if environment.get("ATRIUM_PORT"):
        given.setdefault("ATRIUM_GATEWAY_PORT", environment["ATRIUM_PORT"])
    if rest_port is not None:
        given["ATRIUM_GATEWAY_PORT"] = str(rest_port)
    wanted = tuple(f"ATRIUM_{name.upper()}_" for name in ("gateway", *services))
    ports: dict[str, int] = {}
    for variable, default in DEFAULT_PORTS.items():
        if not variable.startswith(wanted):
            continue
        text = given.get(variable) or str(default)
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            raise ValueError(f"{variable} is {text!r}, not a port from 1 to 65535")
        ports[variable] = int(text)
    return ports
