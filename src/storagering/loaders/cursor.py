"""Where an iteration stands, was told to begin, and ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from storagering.types import Position


@dataclass
class Cursor:
    """Where an iteration stands.

    Attributes:
        position: behind the last batch that was delivered, or where the next iteration shall begin.
        reached: behind the last batch that was delivered, or where the epoch began.
        resuming: the next iteration begins exactly there.
        end: the epoch before which the running iteration ends; None: never, or not known before it begins.
    """

    position: Position = field(default_factory=Position)
    reached: Position = field(default_factory=Position)
    resuming: bool = False
    end: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs; the restored one keeps its step."""
        if not (self.resuming and epoch == self.position.epoch):
            self.position, self.resuming = Position(epoch), False

    def seek(self, position: Position, end: int | None) -> None:
        """Have the next iteration begin there."""
        self.position, self.resuming, self.end = position, True, end

    def begin(self, num_steps: int, num_epochs: int | None, offset: int) -> None:
        """Stand where an iteration begins: where it was told to, or ``offset`` steps into the next epoch."""
        if not self.resuming:
            # An epoch of which all batches were taken is over, also for one who counted them and did not ask for more.
            over = self.position.step >= num_steps > 0
            self.position, self.end = Position(self.position.epoch + over, offset), None
        self.resuming = False
        if num_epochs is not None and (self.end is None or self.end <= self.position.epoch):
            self.end = self.position.epoch + num_epochs

    def close(self, epoch: int) -> None:
        """Stand behind the whole iteration, before an epoch."""
        self.position, self.end = Position(epoch), None

    def next(self, num_steps: int) -> Position:
        """Where an iteration would go on: behind a complete epoch that is the start of the following one."""
        complete = self.position.step >= num_steps > 0
        return self.position.next_epoch() if complete and not self.resuming else self.position
