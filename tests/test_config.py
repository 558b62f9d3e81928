from pathlib import Path

import pytest

from dbgpt_lite.config import ROOT, Settings, load_settings
from dbgpt_lite.errors import ConfigError
from dbgpt_lite.hub.client import Hub
from dbgpt_lite.server import check_settings


def test_pairs_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASES", "shop=mysql+pymysql://u:p=w@h/db hr=sqlite:///hr.db")
    monkeypatch.setenv("LLM_MAX_MEMORY", "0:20GiB cpu:60GiB")
    settings = load_settings()
    assert settings.databases["shop"].get_secret_value() == "mysql+pymysql://u:p=w@h/db"
    assert settings.llm_max_memory == {"0": "20GiB", "cpu": "60GiB"}


def test_relative_folders_count_from_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().data_dir == ROOT / "data"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "zero"), ("LLM_QUANTIZATION", "int3"), ("DATABASES", "mysql+pymysql://root:hunter2@h/db")],
)
def test_wrong_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert name in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "endpoint",
    ["hub.example", "ftp://hub.example", "http://", "http://[", "http://a:b", "http://a:99999", "http://a..b",
     "http://a b", "https://me:secret@hub.example", "https://hub.example?x=1", "https://hub.exa\x07mple"],
)  # fmt: skip
def test_a_hub_that_is_no_address_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "HF_ENDPOINT" in str(caught.value)
    assert "http or https address" in str(caught.value)
    assert endpoint not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint", ["https://hf-mirror.com", "http://127.0.0.1:8080/hub/", "http://[::1]:80", "https://模型.example"]
)
def test_a_hub_that_is_an_address_is_taken(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert load_settings().hf_endpoint == endpoint
    Hub(endpoint)


def test_secrets_stay_out_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql+pymysql://root:hunter2@h/db")
    monkeypatch.setenv("LLM_API_KEY", "hunter2")
    assert "hunter2" not in repr(load_settings())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org"])
def test_other_addresses_need_logins(host: str) -> None:
    with pytest.raises(ConfigError, match="AUTH_USERS"):
        check_settings(Settings(host=host))


def test_clear_passwords_and_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="in the clear for ana"):
        check_settings(Settings(auth_users="ana:hunter2"))
    with pytest.raises(ConfigError, match="API_KEYS"):
        check_settings(Settings(api_keys="ana:hunter2"))
