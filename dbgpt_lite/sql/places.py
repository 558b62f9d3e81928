"""How many statements one person may have in a database at once: nobody takes every connection from the rest."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from dbgpt_lite.errors import Busy

EACH = 3
"""Of the ten connections that a pool has (mysql.py): three people at their limit still leave one."""


class Places:
    """The statements under way in one database, by whose they are. Thread-safe."""

    def __init__(self, name: str, each: int = EACH) -> None:
        self._name = name
        self._each = each
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, who: str) -> Iterator[None]:
        """Hold a place for one statement; "" is nobody and is not counted. Raises Busy at once, and waits for none."""
        with self._lock:
            if who and self._taken[who] >= self._each:
                raise Busy("sql.busy_own", name=self._name, count=self._each)
            self._taken[who] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[who] -= 1
                if not self._taken[who]:
                    del self._taken[who]
