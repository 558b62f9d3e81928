"""Numbered changes of the catalogue's schema; PRAGMA user_version says how many a file has."""

import sqlite3

from dbgpt_lite.errors import KnowledgeIndexError

# One entry per version, never edited once released; each is a list of statements run in one transaction.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE spaces (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            folded TEXT NOT NULL UNIQUE,
            readonly INTEGER NOT NULL DEFAULT 0,
            hidden INTEGER NOT NULL DEFAULT 0,
            embedder TEXT NOT NULL DEFAULT '',
            generation INTEGER NOT NULL DEFAULT 0,
            chunks INTEGER NOT NULL DEFAULT 0,
            added REAL NOT NULL
        )""",
        """CREATE TABLE documents (
            id TEXT PRIMARY KEY,
            space INTEGER NOT NULL REFERENCES spaces(number) ON DELETE CASCADE,
            name TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            size INTEGER NOT NULL,
            pages INTEGER NOT NULL DEFAULT 0,
            chunks INTEGER NOT NULL DEFAULT 0,
            status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'ready', 'failed')),
            error TEXT NOT NULL DEFAULT '',
            encoding TEXT NOT NULL DEFAULT '',
            generation INTEGER NOT NULL DEFAULT 0,
            added REAL NOT NULL,
            UNIQUE (space, sha256)
        )""",
        "CREATE INDEX documents_by_generation ON documents(space, generation)",
        """CREATE TABLE chunks (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            document TEXT NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
            text TEXT NOT NULL,
            page INTEGER,
            heading TEXT NOT NULL,
            start INTEGER NOT NULL,
            end INTEGER NOT NULL,
            words TEXT NOT NULL
        )""",
        "CREATE INDEX chunks_by_document ON chunks(document)",
        """CREATE TABLE vectors (
            chunk INTEGER NOT NULL REFERENCES chunks(id) ON DELETE CASCADE,
            embedder TEXT NOT NULL,
            vector BLOB NOT NULL,
            PRIMARY KEY (chunk, embedder)
        )""",
        """CREATE VIEW chunk_search AS
            SELECT c.id AS id, c.words AS words, 'space' || d.space AS space, c.document AS document
            FROM chunks c JOIN documents d ON d.id = c.document""",
        # The words come cut already (words.py); every joiner of a code counts as a letter so that codes stay whole.
        """CREATE VIRTUAL TABLE chunk_words USING fts5(
            words, space, content='chunk_search', content_rowid='id',
            tokenize="porter unicode61 remove_diacritics 2 tokenchars '-._/+&@#'"
        )""",
    ),
    (
        "ALTER TABLE spaces ADD COLUMN temporary INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE spaces ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        # Where the model of a past embedder lies, so that its spaces answer until they are embedded anew.
        "CREATE TABLE embedders (identity TEXT PRIMARY KEY, folder TEXT NOT NULL)",
        "ALTER TABLE documents ADD COLUMN source TEXT NOT NULL DEFAULT ''",
        # The encoding its owner chose; `encoding` is the one it was read with.
        "ALTER TABLE documents ADD COLUMN chosen TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE documents ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0",
        # The order of uploads: of two files of one name the later one replaces the earlier, whatever the clock says.
        "ALTER TABLE documents ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0",
        "UPDATE documents SET sequence = rowid",
        "CREATE INDEX documents_by_name ON documents(space, name)",
    ),
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a catalogue to the newest schema. Raises KnowledgeIndexError when a newer program wrote it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise KnowledgeIndexError("knowledge.catalog_newer")
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
