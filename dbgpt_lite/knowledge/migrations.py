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
    (
        # What a program puts in under names of its own is no file and replaces none.
        "ALTER TABLE documents ADD COLUMN kind TEXT NOT NULL DEFAULT ''",
        "UPDATE documents SET kind = 'text', sha256 = 'text:' || sha256 WHERE encoding = 'text-record'",
        """CREATE TABLE names (
            document TEXT NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
            space INTEGER NOT NULL,
            name TEXT NOT NULL,
            source TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            PRIMARY KEY (document, name)
        )""",
        "INSERT INTO names SELECT id, space, name, source, sequence FROM documents",
        "DROP INDEX documents_by_name",
        "CREATE INDEX names_by_name ON names(space, name)",
        "CREATE INDEX names_by_source ON names(space, source) WHERE source <> ''",
        "CREATE INDEX documents_by_sequence ON documents(sequence)",
        # Documents that were interrupted and finished with another embedder hold chunks twice: the ones left over have
        # no vector of the space's embedder, or the same text at the same place as a later one.
        "CREATE TABLE leftover (id INTEGER PRIMARY KEY)",
        """INSERT INTO leftover SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document
            JOIN spaces s ON s.number = d.space WHERE d.status = 'ready'
            AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.chunk = c.id AND v.embedder = s.embedder)
            AND EXISTS (SELECT 1 FROM chunks o JOIN vectors v ON v.chunk = o.id AND v.embedder = s.embedder
                WHERE o.document = c.document)""",
        """INSERT INTO leftover SELECT w.id FROM (
                SELECT c.id, first_value(c.id) OVER (PARTITION BY c.document, c.start, c.end ORDER BY c.id DESC) AS last
                FROM chunks c JOIN documents d ON d.id = c.document
                WHERE d.status = 'ready' AND c.id NOT IN (SELECT id FROM leftover)
            ) w WHERE w.id < w.last
            AND (SELECT text FROM chunks WHERE id = w.id) = (SELECT text FROM chunks WHERE id = w.last)""",
        """INSERT INTO chunk_words(chunk_words, rowid, words, space)
            SELECT 'delete', c.id, c.words, c.space FROM chunk_search c WHERE c.id IN (SELECT id FROM leftover)""",
        """UPDATE documents SET chunks = chunks -
            (SELECT count(*) FROM chunks c JOIN leftover l ON l.id = c.id WHERE c.document = documents.id)
            WHERE status = 'ready'""",
        """UPDATE spaces SET generation = generation + 1,
            chunks = (SELECT coalesce(sum(chunks), 0) FROM documents WHERE space = number AND status = 'ready')
            WHERE number IN (SELECT d.space FROM documents d JOIN chunks c ON c.document = d.id
                JOIN leftover l ON l.id = c.id)""",
        "DELETE FROM chunks WHERE id IN (SELECT id FROM leftover)",
        "DROP TABLE leftover",
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
