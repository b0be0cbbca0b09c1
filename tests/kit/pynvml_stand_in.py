"""NVML of a machine with one card: a test puts it where services look for `pynvml`."""

from dataclasses import dataclass

NVML_TEMPERATURE_GPU = 0


class NVMLError(Exception):
    """Never raised here."""


@dataclass(frozen=True)
class _Rates:
    gpu: int = 40


@dataclass(frozen=True)
class _Memory:
    used: int = 30 << 30
    total: int = 48 << 30


def nvmlInit() -> None:
    """The driver is there."""


def nvmlDeviceGetCount() -> int:
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    return index


def nvmlDeviceGetUUID(device: int) -> str:
    return f"GPU-{device}"


def nvmlDeviceGetName(device: int) -> str:
    return "NVIDIA L40S"


def nvmlDeviceGetUtilizationRates(device: int) -> _Rates:
    return _Rates()


def nvmlDeviceGetMemoryInfo(device: int) -> _Memory:
    return _Memory()


def nvmlDeviceGetTemperature(device: int, sensor: int) -> int:
    return 61


def nvmlDeviceGetPowerUsage(device: int) -> int:
    return 212_000
