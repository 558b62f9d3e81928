"""Which tables and columns of a schema a question is about: by words, their rarity, vectors and nearness by keys."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dbgpt_lite.sql.joins import Joins
from dbgpt_lite.sql.schema_index import Postings, SchemaIndex, Term, Vectors, terms

Floats = NDArray[np.float32]

# How many tables are put in order; more than any prompt shows.
RANKED = 60
# How far over the mean a similarity must be to say anything, and where it says all it can, in standard deviations.
_USUAL, _NEAREST = 1.5, 4.5
# With nothing else to go by, tables that many others refer to come first.
_LINKED = 0.001


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each kind of evidence counts. Chosen on one half of benchmarks/schema_retrieval.py's questions."""

    table_vector: float = 0.25
    column_vector: float = 0.1
    # What is left of a word's weight once a table that stands for it is chosen: the next table should explain the rest.
    explained: float = 0.45
    # A table whose name holds much else than what was asked for counts less, down to this share.
    bare_name: float = 0.4
    shadow: float = 0.5
    beside_chosen: float = 0.12
    column_by_vector: float = 0.15


@dataclass(frozen=True, slots=True)
class Ranking:
    """Places of tables, best first, with their scores, and a score for every column of the schema."""

    order: tuple[int, ...]
    scores: Floats
    columns: Floats


def rank(index: SchemaIndex, joins: Joins, question: str, asked: Vectors | None, weights: Weights) -> Ranking:
    """Order the tables for `question`; `asked` is its unit vector, None to go by words alone."""
    asked_words = terms(question)
    in_tables = _matrix(index, asked_words, index.table_postings, len(index.schema.tables))
    in_columns = _matrix(index, asked_words, index.column_postings, index.columns)
    lifted = np.zeros_like(in_tables)
    np.maximum.at(lifted, index.owner, in_columns)
    evidence = np.maximum(in_tables, lifted)
    rarity = _rarity(evidence) * np.array([term.weight for term in asked_words], dtype=np.float32)
    fit = _name_fit(index, asked_words, weights)
    table_near, column_near = _nearness(index, asked)
    base = weights.table_vector * table_near
    np.maximum.at(table_lift := np.zeros(len(base), dtype=np.float32), index.owner, column_near)
    base = base + weights.column_vector * table_lift
    columns = _normal(in_columns @ rarity) + weights.column_by_vector * column_near
    order, scores = _choose(index, joins, evidence, rarity, fit, base, weights)
    return Ranking(order, scores, columns)


def _matrix(index: SchemaIndex, asked: Sequence[Term], postings: Postings, size: int) -> Floats:
    """[place, term]: how surely the term stands there, by the nearest word of the place."""
    found = np.zeros((size, len(asked)), dtype=np.float32)
    for column, term in enumerate(asked):
        for place, near in index.matches(term.word).items():
            held = postings.get(index.vocabulary.words[place])
            if held is not None:
                places, weights = held
                found[places, column] = np.maximum(found[places, column], weights * np.float32(near))
    return found


def _rarity(evidence: Floats) -> Floats:
    """Inverse document frequency of each term over tables; a weak trace counts as a part of one."""
    rarity: Floats = np.log(1 + len(evidence) / (1 + evidence.sum(axis=0))).astype(np.float32)
    return rarity


def _name_fit(index: SchemaIndex, asked: Sequence[Term], weights: Weights) -> Floats:
    """For each table, how much of its name was asked for, from `bare_name` to 1; less for copies not asked for."""
    near: dict[str, float] = {}
    for term in asked:
        for place, value in index.matches(term.word).items():
            word = index.vocabulary.words[place]
            near[word] = max(near.get(word, 0.0), value)
    fits = np.empty(len(index.schema.tables), dtype=np.float32)
    for place, (words, shadow) in enumerate(zip(index.name_words, index.shadow_words, strict=True)):
        share = sum(near.get(word, 0.0) for word in words) / max(len(words), 1)
        fits[place] = weights.bare_name + (1 - weights.bare_name) * share
        if any(near.get(word, 0.0) < 0.9 for word in shadow):
            fits[place] *= weights.shadow
    return fits


def _nearness(index: SchemaIndex, asked: Vectors | None) -> tuple[Floats, Floats]:
    """Vectors' say on every table and column, 0 for the usual and about 1 for the nearest."""
    vectors = index.vectors
    if asked is None or vectors is None:
        return np.zeros(len(index.schema.tables), dtype=np.float32), np.zeros(index.columns, dtype=np.float32)
    return _outstanding(vectors.tables @ asked), _outstanding(vectors.columns @ asked)[vectors.rows]


def _outstanding(values: Floats) -> Floats:
    """0 up to _USUAL standard deviations over the mean, 1 at _NEAREST and beyond."""
    spread = float(values.std()) or 1.0
    over = ((values - values.mean()) / spread - _USUAL) / (_NEAREST - _USUAL)
    return np.asarray(np.clip(over, 0, 1), dtype=np.float32)


def _normal(values: Floats) -> Floats:
    top = float(values.max(initial=0))
    return values / top if top > 0 else values


def _choose(
    index: SchemaIndex, joins: Joins, evidence: Floats, rarity: Floats, fit: Floats, base: Floats, weights: Weights
) -> tuple[tuple[int, ...], Floats]:
    """Tables best first: each by what it says of the question's words that those before it leave unexplained."""
    tables = index.schema.tables
    place_of = {table.name: place for place, table in enumerate(tables)}
    linked = [_LINKED * min(len(joins.neighbours[table.name]), 50) for table in tables]
    left, near, scale = rarity.copy(), np.array(linked, dtype=np.float32), 0.0
    scores, order = np.zeros(len(tables), dtype=np.float32), []
    open_places = np.ones(len(tables), dtype=bool)
    for _ in range(min(RANKED, len(tables))):
        words = (evidence @ left) * fit
        scale = scale or float(words.max(initial=0)) or 1.0
        gain = words / scale + base * np.maximum(fit, 0.6) + near
        gain[~open_places] = -1
        best = int(gain.argmax())
        order.append(best)
        open_places[best] = False
        scores[best] = gain[best]
        left *= 1 - (1 - weights.explained) * np.minimum(evidence[best], 1)
        for name in joins.neighbours[tables[best].name]:
            share = float(gain[best]) / max(float(scores[order[0]]), 1e-6)
            near[place_of[name]] = max(near[place_of[name]], weights.beside_chosen * share)
    return tuple(order), scores
