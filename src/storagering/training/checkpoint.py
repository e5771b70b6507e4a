"""Checkpoints: one safetensors file, complete or absent, every byte under a checksum.

Tensors are stored as such; everything else is JSON in the file's metadata. There is no pickle, so a
checkpoint from somewhere else can be wrong but cannot run code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor

from storagering.errors import ChecksumError, FormatError, ResumeMismatchError, TruncatedError
from storagering.files import read_file, replace_file

FILE_NAME = "checkpoint.safetensors"
_KEY = "storagering"
_FORMAT = "storagering-checkpoint-1"
_MAX_BYTES = 16 << 30
_LENGTH_BYTES = 8  # safetensors: length of the JSON header, then the header, then the tensors
_MARK = "xxh3-128:"
_BLANK = "0" * 32
_CHECKSUM = re.compile(rb"xxh3-128:([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a training is at one moment.

    Attributes:
        tensors: weights, optimiser state, random state; dotted names.
        state: the rest, of JSON types; floats come back bit for bit.
    """

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that a crash at any moment leaves the previous one or this one.

    Raises:
        CacheError: the disk refuses (`CacheFullError`, `ReadOnlyCacheError`).
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    described = {"format": _FORMAT, "checksum": _MARK + _BLANK, "state": checkpoint.state}
    metadata = {_KEY: json.dumps(described, allow_nan=False)}
    data = safetensors.torch.save(tensors, metadata)
    replace_file(path, data.replace(_BLANK.encode(), _digest(data), 1))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check it.

    Raises:
        NotFoundError: there is no such file.
        ChecksumError: it is damaged or cut short.
        FormatError: it is not a checkpoint of this format.
    """
    data = read_file(path.parent.resolve() / path.name, _MAX_BYTES)
    header = _read_header(path, data)
    found = _CHECKSUM.search(header)
    if found is None:
        raise FormatError(f"{path} is not a checkpoint of Storagering")
    recorded, start = found[1], _LENGTH_BYTES + found.start(1)
    blanked = b"".join((data[:start], _BLANK.encode(), data[start + len(_BLANK) :]))
    if _digest(blanked) != recorded:
        raise ChecksumError(f"{path} is damaged: its bytes differ from their checksum; delete it to start again")
    try:
        described = json.loads(json.loads(header)["__metadata__"][_KEY])
        if described["format"] != _FORMAT:
            raise FormatError(f"{path} has the format {described['format']!r}, not {_FORMAT!r}")
        return Checkpoint(safetensors.torch.load(data), described["state"])
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise FormatError(f"{path} is not a checkpoint of Storagering: {error}") from error


def compare_identity(path: Path, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Check that a checkpoint belongs to this run.

    Raises:
        ResumeMismatchError: listing every difference.
    """
    names = [*current, *(name for name in stored if name not in current)]
    differences = [
        f"{name} was {stored.get(name)!r} and is now {current.get(name)!r}"
        for name in names
        if stored.get(name) != current.get(name)
    ]
    if differences:
        raise ResumeMismatchError(
            f"{path} belongs to another run: {'; '.join(differences)}. "
            "Choose another output folder, or delete this checkpoint to start again"
        )


def _digest(data: bytes) -> bytes:
    return xxhash.xxh3_128_hexdigest(data).encode()


def _read_header(path: Path, data: bytes) -> bytes:
    size = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) < _LENGTH_BYTES or size > len(data) - _LENGTH_BYTES:
        raise TruncatedError(f"{path} ends before its header does ({len(data):,} bytes)")
    return data[_LENGTH_BYTES : _LENGTH_BYTES + size]
