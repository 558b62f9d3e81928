"""BM25 over the words of a space, by SQLite's FTS5 (https://www.sqlite.org/fts5.html#the_bm25_function)."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.words import bigrams, tokens, words

# More distinct words than a long question has; keeps a pasted page from becoming a thousand-term query.
MAX_TERMS = 64
# Ranking costs a row for every chunk that holds any of the words: about a millisecond for a thousand. Beyond this many
# the commonest words of the question are left out; they tell chunks apart least.
MOST_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class WordHit:
    """A chunk and its BM25 score (above 0; comparable between the spaces of one catalogue)."""

    id: int
    score: float


def index_words(text: str) -> str:
    """What the BM25 index holds for `text`: its tokens and the Chinese bigrams they miss, separated by spaces."""
    return " ".join(_with_bigrams(tokens(text), text))


def search_words(catalog: Catalog, space_id: str, question: str, limit: int) -> list[WordHit]:
    """The chunks that share words with the question, best first."""
    terms = list(dict.fromkeys(_with_bigrams(words(question) or tokens(question), question)))[:MAX_TERMS]
    if not terms:
        return []
    with catalog.reading() as db:
        found = db.execute("SELECT number, chunks FROM spaces WHERE id = ?", (space_id,)).fetchone()
        if found is None:
            return []
        space = f"space{found[0]}"
        if found[1] <= MOST_ROWS:
            return _ranked(db, terms, space, limit)
        rare, common = _by_rarity(db, terms)
        return _ranked(db, rare, space, limit) or _ranked(db, common, space, limit)


def _ranked(db: sqlite3.Connection, terms: Sequence[str], space: str, limit: int) -> list[WordHit]:
    """The chunks of a space that hold any of the terms, best first.

    Where even the rarest word is in very many chunks, which of them are looked at hardly matters.
    """
    if not terms:
        return []
    rows = db.execute(
        """SELECT rowid, -score FROM (
             SELECT rowid, bm25(chunk_words, 1.0, 0.0) AS score FROM chunk_words WHERE chunk_words MATCH ? LIMIT ?
           ) ORDER BY score LIMIT ?""",
        (f"space : {space} AND {_query(terms)}", 2 * MOST_ROWS, limit),
    )
    return [WordHit(int(row[0]), float(row[1])) for row in rows]


def _by_rarity(db: sqlite3.Connection, terms: Sequence[str]) -> tuple[list[str], list[str]]:
    """The rarest terms of all spaces, as many as have MOST_ROWS rows together and at least one, and the others."""
    count = "SELECT count(*) FROM (SELECT 1 FROM chunk_words WHERE chunk_words MATCH ? LIMIT ?)"
    holding = {term: int(db.execute(count, (_query([term]), MOST_ROWS + 1)).fetchone()[0]) for term in terms}
    order = sorted((term for term in terms if holding[term]), key=lambda term: holding[term])
    sums = list(accumulate(holding[term] for term in order))
    within = max(1, sum(total <= MOST_ROWS for total in sums))
    return order[:within], order[within:]


def _with_bigrams(found: list[str], text: str) -> list[str]:
    """A name that no dictionary has is cut differently in question and document; its pairs of characters agree."""
    known = frozenset(found)
    return [*found, *(pair for pair in bigrams(text) if pair not in known)]


def _query(terms: Sequence[str]) -> str:
    """An FTS5 expression: every term is a quoted string, so no character of it is an operator."""
    quoted = " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)
    return f"words : ({quoted})"
