"""Passwords and API keys: hashing and checking. Nothing here keeps a secret in the clear.

Passwords: scrypt (RFC 7914) with n=2^14, r=8, p=1 and a 16-byte salt, written ``scrypt$<salt>$<hash>`` in hex.
API keys are 256 random bits, so a plain SHA-256 of them is enough.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping

_N, _R, _P = 2**14, 8, 1
KEY_PREFIX = "dbl_"


def hash_password(password: str) -> str:
    """A value for AUTH_USERS."""
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def check_password(users: Mapping[str, str], name: str, password: str) -> bool:
    """Whether `name` may enter. An unknown name costs the same time as a wrong password."""
    _, salt, expected = _split(users.get(name, ""))
    return hmac.compare_digest(_scrypt(password, salt), expected)


def is_password_hash(value: str) -> bool:
    """Whether `value` is a hash this module made (so that a password in the clear is refused at start)."""
    return _split(value)[0]


def new_api_key() -> tuple[str, str]:
    """A fresh key to hand out once, and its hash for API_KEYS."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return key, hash_api_key(key)


def hash_api_key(key: str) -> str:
    """The form in which API_KEYS holds a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def api_key_owner(keys: Mapping[str, str], key: str) -> str | None:
    """The name whose key this is, or None. Compares with every key in constant time."""
    given = hash_api_key(key)
    owners = [name for name, expected in keys.items() if hmac.compare_digest(expected, given)]
    return owners[0] if owners else None


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P)


def _split(value: str) -> tuple[bool, bytes, bytes]:
    try:
        kind, salt, digest = value.split("$")
        parts = bytes.fromhex(salt), bytes.fromhex(digest)
    except ValueError:
        return False, b"no such user", secrets.token_bytes(64)
    return kind == "scrypt" and len(parts[0]) == 16 and len(parts[1]) == 64, *parts
