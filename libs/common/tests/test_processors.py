"""A container's limit counts, as its affinity does."""

import os
from pathlib import Path

import pytest

from atrium_common.processors import processors


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
        (
            "0::/atrium.slice/stt.service\n",
            {
                "sys/fs/cgroup/atrium.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/atrium.slice/stt.service/cpu.max": "max 100000\n",
            },
            2,
        ),
        ("0::/../..\n", {"sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        (
            "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            6,
        ),
        (
            "3:cpu,cpuacct:/\n",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
    ],
    ids=["whole", "part", "less-than-one", "none", "parent", "elsewhere", "old", "old-none"],
)
def test_the_least_of_affinity_and_quotas_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    files: dict[str, str],
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert processors(machine(tmp_path, groups, files)) == expected


def test_where_nothing_is_told_affinity_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3})
    assert processors(tmp_path) == 2
