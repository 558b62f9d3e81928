import pytest

from dbgpt_lite import auth


def test_password_round_trip() -> None:
    users = {"ana": auth.hash_password("correct horse 电池")}
    assert auth.check_password(users, "ana", "correct horse 电池")
    assert not auth.check_password(users, "ana", "correct horse")
    assert not auth.check_password(users, "ben", "correct horse 电池")
    assert not auth.check_password({}, "", "")


def test_same_password_hashes_differently() -> None:
    assert auth.hash_password("x") != auth.hash_password("x")


@pytest.mark.parametrize("value", ["", "secret", "scrypt$zz$00", "scrypt$00$00", "md5$" + "0" * 32 + "$" + "0" * 128])
def test_anything_else_is_no_hash_and_lets_nobody_in(value: str) -> None:
    assert not auth.is_password_hash(value)
    assert not auth.check_password({"ana": value}, "ana", value)


def test_api_key() -> None:
    key, digest = auth.new_api_key()
    assert key not in digest
    assert auth.api_key_owner({"ci": "0" * 64, "ana": digest}, key) == "ana"
    assert auth.api_key_owner({"ana": digest}, key + "x") is None
    assert auth.api_key_owner({}, "") is None
