"""Where a training runs → the content of `environment.json`: machine, software, code, command.

Environment variables are not recorded, and secrets on the command line are masked.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from wellfit.monitor.masking import mask_arguments

FORMAT_VERSION = 1

LIBRARIES = (
    "wellfit", "torch", "numpy", "safetensors", "tokenizers", "pyarrow", "pydantic", "pyyaml",
    "psutil", "xxhash", "zstandard", "ftfy", "py3langid",
)  # fmt: skip
"""Those whose version can change a result."""

_FLAGS = re.compile(r"fma|avx\w*|amx\w*|sse4_2|f16c|asimd\w*|sve\w*|bf16|i8mm|neon", re.IGNORECASE)


def environment(command: Sequence[str] | None = None, folder: Path | None = None) -> dict[str, Any]:
    """The words of the command (by default this process's) and the working folder → plain values.

    Keys: `format_version, recorded, python, platform, cores, cores_usable, cpu_limit, cpu,
    cpu_flags, memory_bytes, accelerators, libraries, git, command`; null where not known.
    """
    return {
        "format_version": FORMAT_VERSION,
        "recorded": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "cores_usable": _cores_usable(),
        "cpu_limit": _cpu_limit(Path("/sys/fs/cgroup/cpu.max")),
        **_cpu(Path("/proc/cpuinfo")),
        "memory_bytes": _memory(),
        "accelerators": _accelerators(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "git": _git(folder or Path.cwd()),
        "command": mask_arguments(sys.argv if command is None else command),
    }


def _cores_usable() -> int | None:
    """Cores that this process may run on, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_limit(path: Path) -> float | None:
    """Cores' worth of time that a container may use; None without a limit."""
    try:
        quota, period = path.read_text().split()[:2]
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _cpu(path: Path) -> dict[str, Any]:
    """Name of the processor and those of its abilities that bear on arithmetic."""
    name, flags = platform.processor() or platform.machine() or None, None
    try:
        text = path.read_text()
    except OSError:
        text = ""
    if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
        name = found[1].strip()
    if found := re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE):
        flags = sorted(flag for flag in set(found[1].split()) if _FLAGS.fullmatch(flag))
    return {"cpu": name, "cpu_flags": flags}


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _accelerators() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        found.append(
            {
                "device": f"cuda:{number}",
                "name": about.name,
                "memory_bytes": int(about.total_memory),
                "capability": f"{about.major}.{about.minor}",
            }
        )
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit of the folder and whether files differ from it; None outside a repository."""
    commit = _ask_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _ask_git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if changed is None else changed != ""}


def _ask_git(folder: Path, *question: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", *question],
            cwd=folder, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
