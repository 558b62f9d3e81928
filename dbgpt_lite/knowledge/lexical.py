"""BM25 over the words of a space, by SQLite's FTS5 (https://www.sqlite.org/fts5.html#the_bm25_function)."""

from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.words import bigrams, tokens, words

# More distinct words than a long question has; keeps a pasted page from becoming a thousand-term query.
MAX_TERMS = 64


def index_words(text: str) -> str:
    """What the BM25 index holds for `text`: its tokens and the Chinese bigrams they miss, separated by spaces."""
    return " ".join(_with_bigrams(tokens(text), text))


def search_words(catalog: Catalog, space_id: str, question: str, limit: int) -> list[int]:
    """Ids of the chunks that share words with the question, best first."""
    terms = list(dict.fromkeys(_with_bigrams(words(question) or tokens(question), question)))[:MAX_TERMS]
    if not terms:
        return []
    with catalog.reading() as db:
        number = db.execute("SELECT number FROM spaces WHERE id = ?", (space_id,)).fetchone()
        if number is None:
            return []
        rows = db.execute(
            """SELECT rowid FROM chunk_words WHERE chunk_words MATCH ?
               ORDER BY bm25(chunk_words, 1.0, 0.0) LIMIT ?""",
            (_query(terms, f"space{number[0]}"), limit),
        )
        return [int(row[0]) for row in rows]


def _with_bigrams(found: list[str], text: str) -> list[str]:
    """A name that no dictionary has is cut differently in question and document; its pairs of characters agree."""
    known = frozenset(found)
    return [*found, *(pair for pair in bigrams(text) if pair not in known)]


def _query(terms: list[str], space: str) -> str:
    """An FTS5 expression: every term is a quoted string, so no character of it is an operator."""
    quoted = " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)
    return f"space : {space} AND words : ({quoted})"
