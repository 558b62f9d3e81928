"""Results of the Data page, kept in memory for a while: pages, charts and files show the rows that were seen."""

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from dbgpt_lite.errors import NotFound
from dbgpt_lite.messages import ResultTable

PER_OWNER = 3
MAX_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class KeptResult:
    """A query of an owner and its rows."""

    owner: str
    connection: str
    sql: str
    table: ResultTable
    bytes: int


class KeptResults:
    """The last results of each owner, within a bound for all of them. Thread-safe; gone when the app is closed."""

    def __init__(self, max_bytes: int = MAX_BYTES, per_owner: int = PER_OWNER) -> None:
        self._max_bytes = max_bytes
        self._per_owner = per_owner
        self._results: OrderedDict[str, KeptResult] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, owner: str, connection: str, sql: str, table: ResultTable) -> str:
        """A name for the result, which nobody can guess; older results make room."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._results[name] = KeptResult(owner, connection, sql, table, _size(table))
            own = [key for key, kept in self._results.items() if kept.owner == owner]
            for key in own[: -self._per_owner]:
                del self._results[key]
            while len(self._results) > 1 and sum(kept.bytes for kept in self._results.values()) > self._max_bytes:
                self._results.popitem(last=False)
        return name

    def get(self, owner: str, name: str) -> KeptResult:
        """Raises NotFound for one that is gone, or another owner's."""
        with self._lock:
            found = self._results.get(name)
            if found is None or found.owner != owner:
                raise NotFound("ui.no_result")
            self._results.move_to_end(name)
            return found


def _size(table: ResultTable) -> int:
    """About the memory of the cells."""
    return sum(len(cell) * 2 + 60 if isinstance(cell, str) else 40 for row in table.rows for cell in row)
