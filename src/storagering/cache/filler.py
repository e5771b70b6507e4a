"""A process that makes a dataset for those who train on it meanwhile.

Run as ``python -m storagering.cache.filler`` it takes one order as a JSON line on stdin and tells on stdout how it gets
on. It ends when stdin does, so it never outlives the training that started it; what it has finished stays.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

import msgspec

from storagering.cache.build import Job, build_dataset
from storagering.cache.layout import open_cache
from storagering.cache.messages import (
    Failure,
    decode_path,
    describe_failure,
    encode_message,
    restore_failure,
    urls_of,
)
from storagering.cache.progress import BuildProgress
from storagering.config import Settings
from storagering.errors import ResourceError, StorageringError, WorkerDiedError
from storagering.files import FileLock

#: Time in which a filler that is told to end puts its things away.
_END_SECONDS = 10.0


@dataclass(frozen=True)
class _Order:
    job: Job
    settings: Settings


@dataclass(frozen=True)
class _Note:
    """One line of what a filler tells; the last one has ``ended``."""

    start: int | None = None
    entries: int = 0
    nbytes: int = 0
    message: str = ""
    failure: Failure | None = None
    ended: bool = False


class Filler:
    """A filler at work, seen from the process that started it.

    Args:
        lock: held, and handed on to the filler, whose death releases it.
    """

    def __init__(self, job: Job, settings: Settings, progress: BuildProgress, lock: FileLock) -> None:
        self._job = job
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "storagering.cache.filler"],  # -P: no modules of the folder we are in
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[lock.descriptor] if lock.descriptor is not None else (),
            )
        except OSError as error:
            raise ResourceError(
                f"cannot start the process that converts dataset {job.name!r} ({error.strerror}); allow more open "
                "files and processes ('ulimit -n', 'ulimit -u')"
            ) from error
        finally:
            lock.release()
        self._end = weakref.finalize(self, _end_process, self._process, os.getpid())
        assert self._process.stdin is not None  # noqa: S101  (PIPE above)
        with suppress(BrokenPipeError):  # it is known by its end
            self._process.stdin.write(encode_message(_Order(job, settings)))
            self._process.stdin.flush()
        self._heard = _Listener(self._process, progress)
        self._listener = threading.Thread(target=self._heard.listen, name="storagering-fill", daemon=True)
        self._listener.start()

    @property
    def works(self) -> bool:
        """Whether it has not ended."""
        return self._listener.is_alive()

    def stop(self) -> StorageringError | None:
        """End it and its workers; what is finished stays.

        Returns:
            What it ended with by itself, None if all went well.
        """
        self._end()
        self._listener.join()
        last = self._heard.last
        if last.ended:
            return restore_failure(last.failure) if last.failure else None
        code = self._process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return WorkerDiedError(
            f"the process that converts dataset {self._job.name!r} ended ({how}); what it had done is kept: run the "
            "same command to go on, with fewer workers if memory is short"
        )


class _Listener:
    """Hears what a filler tells. It does not know the `Filler`, which may be dropped while it works."""

    def __init__(self, process: subprocess.Popen[bytes], progress: BuildProgress) -> None:
        self._process, self._progress = process, progress
        self.last = _Note()

    def listen(self) -> None:
        """Until there is nothing more."""
        assert self._process.stdout is not None  # noqa: S101  (PIPE above)
        with self._process.stdout as lines:
            for line in lines:
                self._hear(msgspec.json.decode(line, type=_Note))

    def _hear(self, note: _Note) -> None:
        if note.start is not None:
            self._progress.start(note.start)
        if note.entries or note.nbytes:
            self._progress.advance(note.entries, note.nbytes)
        if note.message:
            self._progress.tell(note.message)
        if note.ended:
            self.last = note


def _end_process(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:  # in a forked child: it is its parent's
        return
    assert process.stdin is not None  # noqa: S101  (all have one)
    with suppress(BrokenPipeError):
        process.stdin.close()
    if process.poll() is None:
        process.terminate()  # forked children may hold the pipe open
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Told(BuildProgress):
    """Passes on what a build tells; nobody may be listening any more."""

    def __init__(self) -> None:
        self._replies = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)  # whatever libraries print must not mix with notes

    def start(self, total_entries: int) -> None:
        self.put(_Note(start=total_entries))

    def advance(self, entries: int, decoded_bytes: int) -> None:
        self.put(_Note(entries=entries, nbytes=decoded_bytes))

    def tell(self, message: str) -> None:
        self.put(_Note(message=message))

    def put(self, note: _Note) -> None:
        with suppress(BrokenPipeError):
            self._replies.write(msgspec.json.encode(note) + b"\n")


class _Unwanted(BaseException):
    """The training is over."""


def _stop_working(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Unwanted


def _watch_stdin() -> None:
    while os.read(0, 1):  # nothing more comes, but its end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Carry out the order on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the training, which ends us
    signal.signal(signal.SIGTERM, _stop_working)
    told = _Told()
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Order, dec_hook=decode_path)
    threading.Thread(target=_watch_stdin, daemon=True).start()
    with suppress(_Unwanted):
        try:
            build_dataset(open_cache(order.settings), order.job, told)
        except Exception as error:  # noqa: BLE001  (the training raises it)
            told.put(_Note(failure=describe_failure(error, urls_of(order.job.locations)), ended=True))
        else:
            told.put(_Note(ended=True))


if __name__ == "__main__":
    main()
