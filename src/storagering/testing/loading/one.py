"""One loader in this process: ``python -m storagering.testing.loading.one``, driven by `compare`.

Reads one JSON object a line from stdin and answers each by a line: first what to open, then epochs to run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from storagering.testing.loading.case import Case, Epoch, Variant


def main() -> None:
    """Answer until stdin ends. What libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    case = Case(**asked["case"] | {"root": Path(asked["case"]["root"])})
    if not asked.get("prepare"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case.cores])
    found = import_module(f"storagering.testing.loading.peers.{asked['module']}")
    import torch  # after pinning: it counts the cores

    torch.set_num_threads(case.cores)
    variant: Variant = found.VARIANTS[asked["variant"]]
    files = variant.files(case)
    if asked.get("prepare"):
        return
    started = time.perf_counter()
    epoch = variant.open(case)
    _say(answers, {"open_s": time.perf_counter() - started, "disk_bytes": sum(map(_size, files))})
    for line in sys.stdin:
        _say(answers, _run(case, epoch, **json.loads(line)))


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _run(case: Case, epoch: Epoch, number: int, keep: str | None) -> dict[str, Any]:
    """One epoch; ``keep`` names a file for the key and label of each of its samples."""
    first, nbytes = 0.0, 0
    sizes = []
    with Path(keep or os.devnull).open("wb", buffering=0) as kept:
        started = time.perf_counter()
        for batch in epoch(number):
            first = first or time.perf_counter() - started
            sizes.append(len(batch[-1]))
            nbytes += sum(tensor.nbytes for tensor in batch)
            if keep:
                kept.write(np.stack([case.keys(batch), np.array(batch[-1], np.uint64)], axis=1).tobytes())
        seconds = time.perf_counter() - started
    answer = {"seconds": seconds, "first_s": first, "entries": sum(sizes), "bytes": nbytes}
    return answer | ({"sizes": sizes} if keep else {})


if __name__ == "__main__":
    main()
