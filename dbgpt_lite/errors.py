"""The one exception tree.

    DbgptError
    ├── UserError              safe to show: says what is wrong and what to do; never a secret or a host's path
    │   ├── ConfigError        a setting is missing or wrong
    │   ├── NotFound           a conversation, space, document, connection or model that is not there (or is not yours)
    │   ├── Busy               somebody else holds what you need; try again
    │   ├── Overloaded         more is asked of the app than it takes on; the fact `seconds` says when to try again
    │   ├── TooLarge           an upload, a prompt or a result beyond a stated limit
    │   ├── DocumentError      a file cannot be read
    │   ├── KnowledgeIndexError a knowledge index is damaged or was made with another embedder
    │   ├── ModelError         a model cannot be loaded, or failed while answering
    │   │   └── OutOfMemory    not enough memory; the text says what to change
    │   └── DatabaseError      a database cannot be reached or refused the query
    │       ├── QueryRefused   a fence refused the query before the database saw it
    │       ├── QueryFailed    the database reported an error
    │       └── QueryTimeout   the time limit stopped the query
    └── Cancelled              the user stopped it; nothing is wrong

A UserError is made from a text key and facts, so each front end shows it in the reader's language:
``raise QueryRefused("sql.not_select", kind="DELETE")``.
"""

from dbgpt_lite.texts import Language, text


class DbgptError(Exception):
    """Base of every error this package raises on purpose."""


class Cancelled(DbgptError):
    """The user stopped the work."""


class UserError(DbgptError):
    """An error whose text may be shown to a user.

    `key` names a text in locales/ ("sql.not_select"); `facts` fill its variables.
    """

    def __init__(self, key: str, **facts: object) -> None:
        super().__init__(key)
        self.key = key
        self.facts = facts

    def render(self, language: Language = "en") -> str:
        """The sentence to show, in the reader's language; so is a fact that is itself an error."""
        facts = {
            name: fact.render(language) if isinstance(fact, UserError) else fact for name, fact in self.facts.items()
        }
        return text(self.key, language, **facts)

    def __str__(self) -> str:
        return self.render("en")


class ConfigError(UserError):
    """A setting is missing or wrong."""


class NotFound(UserError):
    """The thing asked for does not exist, or is not the caller's."""


class Busy(UserError):
    """Somebody else holds what is needed."""


class Overloaded(UserError):
    """More is asked of the app than it takes on."""


class TooLarge(UserError):
    """Beyond a stated limit."""


class DocumentError(UserError):
    """A file cannot be read."""


class KnowledgeIndexError(UserError):
    """A knowledge index is damaged or does not fit the embedder."""


class ModelError(UserError):
    """A model cannot be loaded, or failed while answering."""


class OutOfMemory(ModelError):
    """Not enough memory for a model or an answer."""


class DatabaseError(UserError):
    """A database cannot be reached or refused a query."""


class QueryRefused(DatabaseError):
    """A fence refused the query before the database saw it."""


class QueryFailed(DatabaseError):
    """The database reported an error."""


class QueryTimeout(DatabaseError):
    """The time limit stopped the query."""
