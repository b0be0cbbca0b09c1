"""The machine's NVIDIA GPUs as metrics, where driver and `nvidia-ml-py` (extra `gpu`) are.

`metrics.py` registers it in every service. Several services on one machine show the same
GPUs; a GPU's UUID, not its number, is the same in all containers.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from atrium_common.telemetry.families import gauge

_log = structlog.get_logger("atrium.gpus")
_LABELS = ("gpu", "name")


class Nvml(Protocol):
    """The part of `pynvml` that is used; its functions raise `NVMLError`."""

    NVMLError: type[Exception]
    NVML_TEMPERATURE_GPU: int

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> object: ...
    def nvmlDeviceGetUUID(self, device: object, /) -> str | bytes: ...
    def nvmlDeviceGetName(self, device: object, /) -> str | bytes: ...
    def nvmlDeviceGetUtilizationRates(self, device: object, /) -> "_Rates": ...
    def nvmlDeviceGetMemoryInfo(self, device: object, /) -> "_Memory": ...
    def nvmlDeviceGetTemperature(self, device: object, sensor: int, /) -> int: ...
    def nvmlDeviceGetPowerUsage(self, device: object, /) -> int: ...


class _Rates(Protocol):
    gpu: int


class _Memory(Protocol):
    used: int
    total: int


def find_nvml() -> Nvml | None:
    """Gives NVML, initialised; ``None`` where there is no driver or no `pynvml`."""
    try:
        nvml: Nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


class Gpus(Collector):
    """Reads every GPU at each scrape. A reading that a card does not give is left out."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._failed = False

    def describe(self) -> Iterable[Metric]:
        """Names nothing ahead."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Reads the GPUs, in the scrape's thread."""
        families = (
            gauge("atrium_gpu_utilization_ratio", "Share of time the GPU was busy.", _LABELS, ()),
            gauge("atrium_gpu_memory_used_bytes", "Memory of the GPU in use.", _LABELS, ()),
            gauge("atrium_gpu_memory_total_bytes", "Memory of the GPU.", _LABELS, ()),
            gauge("atrium_gpu_temperature_celsius", "Temperature of the GPU.", _LABELS, ()),
            gauge("atrium_gpu_power_watts", "Power that the GPU draws.", _LABELS, ()),
        )
        for labels, readings in self._cards():
            for family, reading in zip(families, readings, strict=True):
                if reading is not None:
                    family.add_metric(labels, reading)
        return families

    def _cards(self) -> Iterable[tuple[Sequence[str], Sequence[float | None]]]:
        nvml = self._nvml
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            self._tell(error)
            return
        for index in range(count):
            try:
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                labels = (
                    _text(nvml.nvmlDeviceGetUUID(device)),
                    _text(nvml.nvmlDeviceGetName(device)),
                )
            except nvml.NVMLError as error:  # fell off the bus
                self._tell(error)
                continue
            yield labels, self._readings(device)

    def _readings(self, device: object) -> Sequence[float | None]:
        nvml = self._nvml
        reads: Sequence[Callable[[], float]] = (
            lambda: nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
            lambda: nvml.nvmlDeviceGetMemoryInfo(device).used,
            lambda: nvml.nvmlDeviceGetMemoryInfo(device).total,
            lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
            lambda: nvml.nvmlDeviceGetPowerUsage(device) / 1000,  # milliwatts
        )
        return [self._read(read) for read in reads]

    def _read(self, read: Callable[[], float]) -> float | None:
        try:
            return float(read())
        except self._nvml.NVMLError as error:  # e.g. a slice of a card (MIG) has no load
            self._tell(error)
            return None

    def _tell(self, error: Exception) -> None:
        """Logs the first failure alone: the next scrape is seconds away."""
        if not self._failed:
            self._failed = True
            _log.warning("a GPU's reading is missing", error=str(error))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
