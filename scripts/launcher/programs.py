"""Which processes make up the suite, and the environment that each one is started with.

`main.py` asks once; the supervisor starts what it gets.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.options import Options

_TARGET_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the suite.

    Attributes:
        name: Short name, the prefix of its log lines.
        command: Program and arguments.
        environment: Its whole environment.
        ready_url: Answers 200 when it is ready to serve.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready_url: str


def plan(
    options: Options, *, credential: str, environment: Mapping[str, str]
) -> tuple[Program, ...]:
    """Names the programs, the gateway last.

    Args:
        options: What is started, and on which ports.
        credential: The secret that the processes share.
        environment: What the launcher was started with; its own settings win over it.
    """
    shared = suite_environment(options, credential=credential, environment=environment)
    services = [
        _program(name, f"ATRIUM_{name.upper()}_METRICS_PORT", options, shared)
        for name in options.services
    ]
    return (*services, _program("gateway", "ATRIUM_GATEWAY_PORT", options, shared))


def suite_environment(
    options: Options, *, credential: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """The environment that every process and the `atrium` command are given."""
    shared = {
        "ATRIUM_LOG_FORMAT": "console",
        **environment,
        "PYTHONUNBUFFERED": "1",
        "ATRIUM_SERVICE_CREDENTIAL": credential,
        "ATRIUM_CATALOGUE": str(options.catalogue),
        "ATRIUM_STATE_DIR": str(options.state),
        "ATRIUM_MODELS_DIR": str(options.models),
        "ATRIUM_ADMISSION_TARGET": _target(options.ports["ATRIUM_GATEWAY_ADMISSION_PORT"]),
    }
    # A fallback for every process would put all of them on one port.
    for fallback in ("ATRIUM_PORT", "ATRIUM_METRICS_PORT", "ATRIUM_ADMISSION_PORT"):
        shared.pop(fallback, None)
    shared |= {variable: str(port) for variable, port in options.ports.items()}
    for name in options.services:
        shared[f"ATRIUM_GATEWAY_{name.upper()}_TARGET"] = _target(
            options.ports[f"ATRIUM_{name.upper()}_PORT"]
        )
    return shared


def _program(name: str, probe_port: str, options: Options, shared: Mapping[str, str]) -> Program:
    return Program(
        name=name,
        command=(sys.executable, "-m", f"atrium_{name}"),
        environment=shared,
        ready_url=f"http://{_target(options.ports[probe_port])}/health/ready",
    )


def _target(port: int) -> str:
    return f"{_TARGET_HOST}:{port}"
