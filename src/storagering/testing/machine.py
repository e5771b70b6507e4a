"""What a measurement was taken on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from storagering.config import usable_cpus


def describe_machine() -> dict[str, Any]:
    """Cores that may be used, the processor's name, and Python's version."""
    return {"cores": usable_cpus(), "cpu": _cpu_name(), "python": platform.python_version()}


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
