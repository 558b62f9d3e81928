"""The part of a large schema that a question needs: tables, columns and the keys that join them, as much as fits."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from dbgpt_lite.sql.joins import Joins
from dbgpt_lite.sql.schema import Schema, TableInfo
from dbgpt_lite.sql.schema_index import Embed, SchemaIndex, Vectors, readable
from dbgpt_lite.sql.schema_rank import Ranking, Weights, rank

log = logging.getLogger(__name__)

# Connections whose words and vectors are kept; 8,000 columns take about 10 MB.
KEPT = 8
# A schema of no more columns is tried whole before anything is searched.
_SMALL = 1500
# Columns a table begins with beside its keys, and how many are added at a time where there is room.
_FIRST_COLUMNS, _MORE_COLUMNS = 4, 4
# A table is left out rather than shown with a longer chain of tables that join it to the others.
_LONGEST_WAY = 3


@dataclass(frozen=True, slots=True)
class Picked:
    """What a prompt shows of a schema. `tables` and `columns` are how many are shown, of how many there are.

    The schema is for reading only: names are checked against the whole one.
    """

    schema: Schema
    tables: int
    of_tables: int
    columns: int
    of_columns: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A schema as last searched. `before` are vectors of the one before it, for the texts both have."""

    schema: Schema
    index: SchemaIndex
    joins: Joins
    before: Mapping[str, Vectors]


@dataclass
class _Place:
    """One connection's. `vectors_of`: the schema whose vectors `worker` makes or made."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    known: _Known | None = None
    vectors_of: Schema | None = None
    worker: threading.Thread | None = None


@dataclass(frozen=True, slots=True)
class _Growth:
    """One more thing to show: a table (with what joins it to those before) or more columns of one that is shown."""

    table: str
    way: tuple[str, ...] = ()
    columns: frozenset[str] = frozenset()


class SchemaSearch:
    """Searches schemas by connection name. Thread-safe.

    `embed` turns texts into unit vectors, float32 of shape (texts, dimension); None to go by words alone.
    `embed_question` does so for a question, where the model wants that to be told. `chinese`: the model reads Chinese;
    else Chinese is put to it as far as the thesaurus knows it in English.
    """

    def __init__(
        self,
        embed: Embed | None = None,
        embed_question: Embed | None = None,
        chinese: bool = False,
        weights: Weights | None = None,
    ) -> None:
        self._embed = embed
        self._embed_question = embed_question or embed
        self._chinese = chinese
        self._weights = weights or Weights()
        self._lock = threading.Lock()
        self._places: OrderedDict[str, _Place] = OrderedDict()

    def warm(self, name: str, schema: Schema) -> None:
        """Make ready for questions on this schema: seconds for thousands of columns, nothing the next time."""
        self._begin_vectors(name, self._known(name, schema))
        if worker := self._place(name).worker:
            worker.join()

    def pick(self, name: str, schema: Schema, question: str, fits: Callable[[Schema], bool]) -> Picked:
        """The most of `schema` for `question` that `fits` accepts (e.g. a token budget); one table at least.

        `name` is the connection's. All of the schema if it fits; else the best tables and of those the best columns,
        always with primary keys and with the columns and tables that join what is shown. Never waits for a schema's
        vectors: until they are made, in the background, words alone decide.
        """
        if _columns(schema) <= _SMALL and fits(schema):
            return _picked(schema, schema)
        known = self._known(name, schema)
        self._begin_vectors(name, known)
        ranking = rank(known.index, known.joins, question, self._vector(known, question), self._weights)
        return _picked(_largest(known, list(_growth(known, ranking)), fits), schema)

    def _vector(self, known: _Known, question: str) -> Vectors | None:
        text = readable(question, self._chinese)
        if known.index.vectors is None or self._embed_question is None or not text:
            return None
        vector: Vectors = self._embed_question([text])[0]
        return vector

    def _known(self, name: str, schema: Schema) -> _Known:
        """The index of this schema; vectors of texts that an earlier schema of the connection had stay."""
        place = self._place(name)
        with place.lock:
            if place.known is None or (place.known.schema is not schema and place.known.schema != schema):
                before = place.known.index.vectors if place.known else None
                index = SchemaIndex(schema, self._chinese)
                place.known = _Known(schema, index, Joins(schema), before.of_card if before else {})
            return place.known

    def _begin_vectors(self, name: str, known: _Known) -> None:
        """Once for every schema: a failure is not repeated at each question."""
        place = self._place(name)
        with place.lock:
            if self._embed is None or place.vectors_of is known.schema:
                return
            place.vectors_of = known.schema
            arguments = (self._embed, name, known)
            place.worker = threading.Thread(target=_make_vectors, args=arguments, name=f"schema-{name}", daemon=True)
            place.worker.start()

    def _place(self, name: str) -> _Place:
        with self._lock:
            place = self._places.setdefault(name, _Place())
            self._places.move_to_end(name)
            while len(self._places) > KEPT:
                self._places.popitem(last=False)
            return place


def _make_vectors(embed: Embed, name: str, known: _Known) -> None:
    try:
        known.index.embed_cards(embed, known.before)
    except Exception as error:
        # Words alone still find most; the log says why the rest is missing.
        log.warning("the schema of connection %r could not be embedded: %s", name, type(error).__name__)


def _growth(known: _Known, ranking: Ranking) -> Iterator[_Growth]:
    """What to show, the most useful first: tables by rank, and more columns of the best ones in between."""
    tables, first = known.schema.tables, known.index.first
    chosen: set[str] = set()
    pending: list[tuple[int, Iterator[_Growth]]] = []
    for number, place in enumerate(ranking.order):
        table = tables[place]
        scored = sorted(
            zip(ranking.columns[first[place] : first[place + 1]], table.columns, strict=True), key=lambda pair: -pair[0]
        )
        names = [column.name for _, column in scored]
        way = _way(known, ranking, chosen, table.name)
        if chosen and len(way) - 2 > _LONGEST_WAY:
            continue
        chosen.update(way, (table.name,))
        yield _Growth(table.name, way, frozenset(names[:_FIRST_COLUMNS]))
        pending.append((number, _more(table.name, names[_FIRST_COLUMNS:])))
        # The best table's columns come in with every other table, those of the tenth with every twentieth.
        for own, more in pending:
            if (number - own) % (2 + 2 * own) == 1 + own:
                yield from (step for step in [next(more, None)] if step)
    for place in ranking.order:
        yield from (_Growth(tables[place].name, (), frozenset(c.name for c in tables[place].columns)),)


def _more(table: str, names: list[str]) -> Iterator[_Growth]:
    for start in range(0, len(names), _MORE_COLUMNS):
        yield _Growth(table, (), frozenset(names[start : start + _MORE_COLUMNS]))


def _way(known: _Known, ranking: Ranking, chosen: set[str], name: str) -> tuple[str, ...]:
    """The tables that join `name` to those chosen, over few tables, telling ones rather than ones that all refer to."""
    if not chosen or name in chosen:
        return ()
    place_of = known.index.place_of
    top = float(ranking.scores.max(initial=0)) or 1.0

    def cost(table: str) -> float:
        place = place_of[table]
        hub = len(known.joins.neighbours[table]) / 40
        copied = 0.5 * bool(known.index.shadow_words[place])
        return 1 + min(hub, 1) + copied - 0.5 * float(ranking.scores[place]) / top

    return known.joins.way(name, chosen, cost)


def _largest(known: _Known, growth: list[_Growth], fits: Callable[[Schema], bool]) -> Schema:
    """The longest beginning of `growth` that fits: doubled until it does not, then halved in between."""
    low, high = 1, 32
    while high < len(growth) and fits(_shown(known, growth[:high])):
        low, high = high, high * 2
    high = min(high, len(growth))
    if high == len(growth) and fits(whole := _shown(known, growth)):
        return known.schema if fits(known.schema) else whole
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(_shown(known, growth[:middle])) else (low, middle)
    return _shown(known, growth[:low])


def _shown(known: _Known, growth: list[_Growth]) -> Schema:
    """The part of the schema that these steps show, in the schema's own order."""
    wanted: dict[str, set[str]] = {}
    for step in growth:
        for name in step.way:
            wanted.setdefault(name, set())
        wanted.setdefault(step.table, set()).update(step.columns)
    keys = known.joins.keys_between(frozenset(wanted))
    tables = (known.schema.tables[place] for place in sorted(known.index.place_of[name] for name in wanted))
    shown = frozenset(name.lower() for name in wanted)
    return Schema(tuple(_cut(table, wanted[table.name], keys[table.name], shown) for table in tables))


def _cut(table: TableInfo, wanted: set[str], keys: frozenset[str], shown: frozenset[str]) -> TableInfo:
    """The table with its key, its joins to what is shown and the wanted columns, in their own order."""
    columns = tuple(
        column for column in table.columns if column.primary_key or column.name in wanted or column.name.lower() in keys
    )
    names = {column.name.lower() for column in columns}
    foreign = tuple(
        key
        for key in table.foreign_keys
        if key.target.lower() in shown and all(column.lower() in names for column in key.columns)
    )
    return replace(table, columns=columns, foreign_keys=foreign)


def _picked(shown: Schema, whole: Schema) -> Picked:
    return Picked(shown, len(shown.tables), len(whole.tables), _columns(shown), _columns(whole))


def _columns(schema: Schema) -> int:
    return sum(len(table.columns) for table in schema.tables)
