"""Writes every Dockerfile from one text: ``python deploy/images/write.py [FOLDER]``.

Run by whoever changes what the images share, or adds one. The Dockerfiles are committed, because
each is read and built by itself; ``tests/deploy/test_images.py`` holds them to this text.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

ROOT = Path(__file__).parents[2]


class _Text(Template):
    """A text with ``@{name}`` for what differs, because ``$`` is the Dockerfile's own."""

    delimiter = "@"


HEAD = _Text("""\
# syntax=docker/dockerfile:1.7
# @{title}. The context is the repository's root@{targets} (docs/deploy/images.md).
# Written by deploy/images/write.py: change that.
""")
BASES = {
    "cpu": """\
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm\
@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba
""",
    "gpu": """\
# Python 3.12, CUDA 12.9 and cuDNN 9.
ARG CUDA_IMAGE=nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04\
@sha256:d02c4310b6d57ca0b16cd80298bdb33a74187baafe2eccd8a6a16180ddc90802
""",
}
BASE_NAMES = {"cpu": "PYTHON_IMAGE", "gpu": "CUDA_IMAGE"}
# Locks before code: what is downloaded is installed anew only when a lock changes.
STAGES = _Text("""\

FROM ${@{base}} AS @{target}-build
WORKDIR /src
@{arguments}COPY deploy/images/install.sh deploy/images/build.lock deploy/images/
@{locks}
RUN --mount=type=cache,id=atrium-pip,target=/root/.cache/pip \\
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \\
    deploy/images/install.sh packages @{name} @{target}
@{sources}
RUN --mount=type=cache,id=atrium-pip,target=/root/.cache/pip \\
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \\
    deploy/images/install.sh code @{name} @{target}

FROM ${@{base}} AS @{target}
RUN --mount=type=bind,source=deploy/images,target=/mnt/images \\
    /mnt/images/install.sh system @{name} @{target}
COPY --from=@{target}-build /opt/atrium /opt/atrium
COPY --from=@{target}-build /etc/atrium /etc/atrium
ENV @{environment}
ARG ATRIUM_VERSION=dev
ARG ATRIUM_REVISION=unknown
LABEL org.opencontainers.image.title="atrium-@{name}" \\
    org.opencontainers.image.description="Atrium: @{does} (@{TARGET})" \\
    org.opencontainers.image.licenses="Apache-2.0" \\
    org.opencontainers.image.version="$ATRIUM_VERSION" \\
    org.opencontainers.image.revision="$ATRIUM_REVISION"
@{expose}WORKDIR /data
USER 10001:10001
STOPSIGNAL SIGTERM
@{end}
""")
PROBED = _Text("""\
HEALTHCHECK --interval=15s --timeout=5s --start-period=@{start} --start-interval=2s --retries=4 \\
    CMD ["python", "-m", "@{probe}"]
ENTRYPOINT ["python", "-m", "atrium_@{name}"]""")
ONE_SHOT = """\
# A one-shot: its exit status is its health.
HEALTHCHECK NONE
ENTRYPOINT ["atrium-models"]
CMD ["pull"]"""
EVERYWHERE = "0.0.0.0"  # noqa: S104  # a container's network is its own
ENVIRONMENT = {
    "PATH": "/opt/atrium/venv/bin:$PATH",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",  # noqa: S108  # the one folder that is always writable
}
CATALOGUES = {
    "cpu": "/etc/atrium/models/starter.yaml",
    "gpu": "/etc/atrium/models/gpu.yaml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One target of an image: a stage that builds, and the stage that is kept.

    Attributes:
        name: ``cpu`` or ``gpu``.
        locks: the files that `packages` reads, from the repository's root.
        environment: what is set besides `ENVIRONMENT`.
        end: the lines from the health check on.
    """

    name: str
    locks: tuple[str, ...]
    environment: Mapping[str, str]
    end: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One Dockerfile.

    Attributes:
        name: what the install script calls it.
        folder: where it stands, from the repository's root.
        title: the first sentence of its head.
        does: what its label tells of it.
        targets: in the Dockerfile's order; a build that names none makes the last.
        sources: folders that `code` reads, besides the catalogues.
        arguments: what a build may be told besides its labels.
        ports: what it listens on.
    """

    name: str
    folder: str
    title: str
    does: str
    targets: tuple[Target, ...]
    sources: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()

    def render(self) -> str:
        """Returns the Dockerfile's text."""
        names = [target.name for target in self.targets]
        both = "; targets cpu and gpu" if len(names) > 1 else ""
        head = HEAD.substitute(title=self.title, targets=both)
        bases = "".join(BASES[name] for name in sorted(names))
        return head + bases + "".join(self._stages(target) for target in self.targets)

    def _stages(self, target: Target) -> str:
        return STAGES.substitute(
            base=BASE_NAMES[target.name],
            target=target.name,
            TARGET=target.name.upper(),
            name=self.name,
            does=self.does,
            arguments="".join(f'ARG {name}=""\n' for name in self.arguments),
            locks=_copies(target.locks),
            sources="\n".join(f"COPY {folder} {folder}" for folder in (*self.sources, "models")),
            environment=_pairs({**ENVIRONMENT, **target.environment}),
            expose=f"EXPOSE {' '.join(map(str, self.ports))}\n" if self.ports else "",
            end=target.end,
        )


def _copies(files: Iterable[str]) -> str:
    """Returns a COPY for each folder, whose files keep their place."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folders.setdefault(file.rpartition("/")[0], []).append(file)
    return "\n".join(f"COPY {' '.join(names)} {folder}/" for folder, names in folders.items())


def _pairs(environment: Mapping[str, str]) -> str:
    return " \\\n    ".join(f"{name}={value}" for name, value in environment.items())


def service(
    name: str,
    port: int,
    title: str,
    *,
    libraries: tuple[str, ...] = (),
    gpu_locks: tuple[str, ...] = (),
    gpu_environment: Mapping[str, str] | None = None,
) -> Image:
    """Returns the image of a model service, whose metrics are 1000 ports above its own."""
    folder = f"services/{name}"
    project = f"{folder}/pyproject.toml"

    def target(kind: str, start: str, locks: tuple[str, ...], more: Mapping[str, str]) -> Target:
        return Target(
            name=kind,
            locks=locks,
            environment={
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                "ATRIUM_SERVICE": name,
                **more,
                "ATRIUM_CATALOGUE": CATALOGUES[kind],
                "ATRIUM_MODELS_DIR": "/models",
                # What engines make of weights: /models may be read-only.
                "ATRIUM_CACHE_DIR": "/data/models",
                "ATRIUM_STATE_DIR": "/data",
                f"ATRIUM_{name.upper()}_HOST": EVERYWHERE,
            },
            end=PROBED.substitute(name=name, start=start, probe="atrium_common.probe"),
        )

    gpu_lock, cpu_lock = f"{folder}/requirements.gpu.lock", f"{folder}/requirements.lock"
    return Image(
        name=name,
        folder=folder,
        title=title,
        does=f"{title[0].lower()}{title[1:]} over gRPC",
        targets=(
            target("gpu", "15m", (*gpu_locks, project, gpu_lock), gpu_environment or {}),
            target("cpu", "5m", (project, cpu_lock), {}),
        ),
        sources=("libs/common", *libraries, folder),
        arguments=("TORCH_INDEX",),
        ports=(port, port + 1000),
    )


GATEWAY = Image(
    name="gateway",
    folder="services/gateway",
    title="The gateway",
    does="REST in front, tenancy, quotas and the usage ledger",
    targets=(
        Target(
            name="cpu",
            locks=("services/gateway/pyproject.toml", "services/gateway/requirements.lock"),
            environment={
                "HF_HUB_OFFLINE": "1",
                "ATRIUM_CATALOGUE": CATALOGUES["cpu"],
                "ATRIUM_STATE_DIR": "/data",
                "ATRIUM_GATEWAY_HOST": EVERYWHERE,
                "ATRIUM_GATEWAY_ADMISSION_HOST": EVERYWHERE,
                "ATRIUM_GATEWAY_METRICS_HOST": EVERYWHERE,
            },
            end=PROBED.substitute(name="gateway", start="1m", probe="atrium_gateway.probe"),
        ),
    ),
    sources=("libs/common", "services/gateway"),
    ports=(8000, 8001, 9000),
)
MODELS = Image(
    name="models",
    folder="deploy/models",
    title="The one-shot that fetches models",
    does="fetches and checks the models of a catalogue",
    targets=(
        Target(
            name="cpu",
            locks=("deploy/models/requirements.lock",),
            environment={"ATRIUM_CATALOGUE": CATALOGUES["cpu"], "ATRIUM_MODELS_DIR": "/models"},
            end=ONE_SHOT,
        ),
    ),
    sources=("libs/common",),
)
IMAGES = (
    GATEWAY,
    MODELS,
    service("text2image", 7860, "Pictures from text", libraries=("libs/diffusion",)),
    service("tts", 7861, "Text to speech", gpu_locks=("requirements/xtts.lock",)),
    service("stt", 7862, "Speech to text"),
    service("img2img", 7863, "Pictures from pictures", libraries=("libs/diffusion",)),
    service("img2text", 7864, "Captions, answers and text out of pictures"),
    service(
        "llm",
        7865,
        "Chat, completion and embeddings",
        # What vLLM compiles outlives the container.
        gpu_environment={
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": "/data/vllm",
            "TRITON_CACHE_DIR": "/data/triton",
            "TORCHINDUCTOR_CACHE_DIR": "/data/inductor",
            "FLASHINFER_WORKSPACE_BASE": "/data",
        },
    ),
)


def write(folder: Path) -> None:
    """Writes each Dockerfile at its place below `folder`."""
    for image in IMAGES:
        path = folder / image.folder / "Dockerfile"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(image.render())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
