"""What a build tells while it works."""


class BuildProgress:
    """Told while a build works; subclass it to show something. The default is silent."""

    def start(self, total_entries: int) -> None:
        """The work is known: so many entries (also called when a build starts over)."""

    def advance(self, entries: int, decoded_bytes: int) -> None:
        """That much more was read and written."""

    def tell(self, message: str) -> None:
        """A sentence for the user."""
