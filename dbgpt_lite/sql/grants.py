"""What a MySQL account may do beyond reading, from SHOW GRANTS."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Privileges that neither write nor reach files, other accounts or the server's state.
_HARMLESS = frozenset(("SELECT", "USAGE", "SHOW VIEW", "SHOW DATABASES"))
_PART = r"(?:`(?:[^`]|``)+`|'[^'\\]+'|\"[^\"\\]+\"|\w+)"
# A role of MariaDB is `name`, one of MySQL `name`@`host`.
_NAME = rf"{_PART}(?:@{_PART})?"
_GRANT = re.compile(rf"GRANT (.+?) ON .+ TO ({_NAME})", re.IGNORECASE)
_ROLES = re.compile(rf"GRANT ({_NAME}(?:, ?{_NAME})*) TO {_NAME}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AccountWarning:
    """`privileges` go beyond reading, where "ROLE name" is a role that cannot be looked into; `statements` make an
    account for `database` that may read only.
    """

    privileges: tuple[str, ...]
    database: str
    statements: tuple[str, ...]


def read_grants(lines: Iterable[str], database: str) -> AccountWarning | None:
    """None when the account may only read. `lines` are SHOW GRANTS of the account and of its roles."""
    lines = list(lines)
    found: list[str] = []
    seen: set[str] = set()
    for line in lines:
        grant = _GRANT.match(line)
        if grant:
            # Column lists such as SELECT (id, name) are no names of privileges.
            names = re.sub(r"\([^)]*\)", "", grant[1]).split(",")
            found += [name.strip().upper() for name in names]
            seen.add(grant[2])
    # Every role that may be looked into has a line of its own, be it GRANT USAGE.
    found += [f"ROLE {_bare(role)}" for role in granted_roles(lines) if role not in seen]
    privileges = tuple(name for name in dict.fromkeys(found) if name and name not in _HARMLESS)
    return AccountWarning(privileges, database, _reader_statements(database)) if privileges else None


def granted_roles(lines: Iterable[str]) -> tuple[str, ...]:
    """Names of the roles that these lines of SHOW GRANTS grant, quoted as the server did."""
    granted = (match[1] for line in lines if (match := _ROLES.match(line)))
    return tuple(dict.fromkeys(name for names in granted for name in re.findall(_NAME, names)))


def _bare(role: str) -> str:
    """The role's name for a reader: without quotes, and without the host when it is any."""
    return re.sub(r"[`'\"]", "", role).removesuffix("@%")


def _reader_statements(database: str) -> tuple[str, ...]:
    name = database.replace("`", "``")
    return (
        "CREATE USER 'dbgpt_reader'@'%' IDENTIFIED BY 'choose-a-password';",
        f"GRANT SELECT, SHOW VIEW ON `{name}`.* TO 'dbgpt_reader'@'%';",
    )
