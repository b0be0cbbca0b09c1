"""How many rows a batch may have; the loop asks while it fills one."""

REGROW = 64
"""Good batches after which a bound that was halved is doubled."""


class RowBudget:
    """Bounds the rows of a batch; learns from the device where memory ran out.

    Other processes use the device as well, so a bound that was halved grows back while all
    goes well.
    """

    def __init__(self, most: int) -> None:
        """Starts with the operator's bound, 1 or more."""
        self._most = most
        self._good = 0
        self.rows = most

    def shrink(self, rows: int) -> None:
        """Memory ran out with so many rows: allows half of them for a while."""
        self.rows = max(1, min(rows, self.rows) // 2)
        self._good = 0

    def succeeded(self) -> None:
        """A batch went well."""
        self._good += 1
        if self._good >= REGROW and self.rows < self._most:
            self._good = 0
            self.rows = min(self.rows * 2, self._most)
