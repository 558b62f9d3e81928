"""Every setting of the app, read once from the environment and ``.env``; nothing else reads them."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dbgpt_lite.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


# What libraries read from the environment when they are imported; a value that is already set stays.
_LIBRARY_SETTINGS = {
    "HF_HUB_OFFLINE": "1",  # models come from folders, never from a hub
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "TOKENIZERS_PARALLELISM": "false",
    # Idle threads sleep; with the default they spin, and small models on busy cores slow down several times.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Without it the GPU memory that torch holds but does not use grew to 2.4 GiB over a prompt of 32,000 tokens.
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}
_M_ARENA_MAX = -8  # malloc.h
_NO_NETWORK = ("TOKENIZERS_PARALLELISM", "OMP_WAIT_POLICY", "PYTORCH_ALLOC_CONF")
# What the libraries take for the same word.
_OFF = {"1": ("1", "on", "yes", "true"), "False": ("false",), "false": ("", "0", "no", "off", "false")}


class Settings(BaseSettings):
    """Settings in the order of ``.env.template``. Relative paths count from the project's folder."""

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    # --- Page and server
    host: str = Field("127.0.0.1", description="Address to listen on. Anything but loopback needs AUTH_USERS.")
    port: int = Field(7860, ge=1, le=65535, description="Port of the page and the API.")
    language: Literal["auto", "en", "zh"] = Field("auto", description="Language of the page: auto follows the browser.")
    auth_users: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="Logins as name:hash separated by spaces; make a hash with: python -m dbgpt_lite hash-password",
    )
    api_keys: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="API keys as name:hash separated by spaces; make one with: python -m dbgpt_lite new-api-key",
    )
    data_dir: Path = Field(Path("data"), description="Where conversations, documents and indexes are kept.")
    store_url: SecretStr = Field(
        SecretStr(""), description="Database of the conversations, e.g. mysql+pymysql://...; empty: SQLite in DATA_DIR."
    )
    max_answers: int = Field(
        64, ge=1, le=1000, description="Answers made or waited for at a time; more are refused with the expected wait."
    )
    max_answers_per_user: int = Field(8, ge=1, le=1000, description="Of these, the answers of one user or one API key.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    block_unexpected_connections: bool = Field(
        False, description="Refuse outbound connections that nobody asked for and no setting names."
    )

    # --- Language model
    llm_model: str = Field(
        "", description="Folder of a Hugging Face causal language model; empty: the built-in assistant."
    )
    llm_quantization: Literal["none", "int8", "nf4", "int4"] = Field("none", description="Quantize while loading.")
    llm_dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Type of the weights when not quantized."
    )
    llm_device_map: str = Field(
        "auto",
        description="Placement: auto, balanced, balanced_low_0, sequential, cpu, cuda:0, or a map in JSON of the names "
        "of layers to devices.",
    )
    llm_max_memory: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="Memory to use per device, separated by spaces, e.g. 0:20GiB cpu:60GiB; empty: what is free.",
    )
    llm_chat_format: str = Field(
        "",
        description="How a conversation is written for LLM_MODEL, e.g. guanaco or vicuna (docs/models.md lists them); "
        "empty: as its folder, its tokenizer or its family says.",
    )
    llm_context: int = Field(
        0, ge=0, description="Context window in tokens; 0: as long as the model and the memory allow."
    )
    llm_users: int = Field(
        0,
        ge=0,
        description="Conversations answered at the same time on a GPU, at most 64, whose caches must fit in memory; 0: "
        "one, and up to eight where half of the memory left over holds them.",
    )
    llm_wide_memory: float | None = Field(
        None,
        ge=0,
        description="GiB of a GPU's memory, of what is left over, that may keep 4-bit weights in 16 bits too: prompts "
        "are read faster (a 33B model takes 60 GiB for all). Empty: what is left beyond an eighth of what was free, or "
        "3 GiB if that is more; 0: none.",
    )
    llm_prefix_memory: float = Field(
        0.5,
        ge=0,
        description="GiB that a model on a CPU may take to keep the beginnings of prompts (schemas, documents, "
        "conversations) for the next question; 0: the last prompt only.",
    )
    llm_idle_unload_min: int = Field(
        0, ge=0, description="Unload the model after so many minutes without a question; the next loads it; 0: never."
    )
    llm_endpoint: str = Field(
        "",
        description="Base URL of an OpenAI-compatible server (vLLM, llama.cpp, Ollama), e.g. http://127.0.0.1:8000/v1",
    )
    llm_endpoint_model: str = Field("", description="Model name to ask of LLM_ENDPOINT; empty: the first it lists.")
    llm_api_key: SecretStr = Field(SecretStr(""), description="Key for LLM_ENDPOINT, when it wants one.")
    llm_temperature: float = Field(0.7, ge=0, le=2, description="Default temperature; 0 is greedy.")
    llm_top_p: float = Field(0.95, gt=0, le=1, description="Default nucleus sampling share.")
    llm_max_tokens: int = Field(512, ge=1, description="Default length limit of an answer in tokens.")
    llm_time_limit: float = Field(
        600.0,
        ge=0,
        description="Seconds a model may compute for one answer and its queries, waiting not counted; 0: no limit.",
    )
    models_dir: Path = Field(Path("models"), description="Where the Models page looks for model folders.")

    hf_endpoint: str = Field("https://huggingface.co", description="Hub to download models from; a mirror's address.")
    hf_token: SecretStr = Field(SecretStr(""), description="Token of the hub, for models with a licence to accept.")
    model_downloads: Literal["auto", "on", "off"] = Field(
        "auto", description="Download models on the Models page; auto: while AUTH_USERS is empty."
    )

    # --- Documents
    embedding_model: str = Field(
        "", description="Folder of a sentence-transformers model; empty: the embedded all-MiniLM-L6-v2."
    )
    embedding_device: str = Field("auto", description="auto, cpu or cuda:0.")
    knowledge_chunk_tokens: int = Field(
        180, ge=32, le=2000, description="Length of a chunk in tokens of the embedding model."
    )
    knowledge_chunk_overlap: int = Field(30, ge=0, description="Tokens that neighbouring chunks share.")
    knowledge_top_k: int = Field(5, ge=1, le=50, description="Passages looked up for a question.")
    reranker_model: str = Field(
        "", description="Folder of a sentence-transformers CrossEncoder that reorders the passages found; empty: none."
    )
    vector_store: SecretStr = Field(
        SecretStr(""), description="Engine of the vectors, e.g. qdrant+http://127.0.0.1:6333; empty: FAISS in DATA_DIR."
    )
    sample_data: bool = Field(True, description="Offer the sample documents and the sample database.")
    upload_max_mb: int = Field(50, ge=1, description="Largest file that may be uploaded, in MB.")
    upload_max_files: int = Field(50, ge=1, description="Most files in one upload.")

    # --- Databases
    database_url: SecretStr = Field(
        SecretStr(""), description="The database to ask, e.g. mysql+pymysql://reader:password@127.0.0.1:3306/shop"
    )
    databases: Annotated[dict[str, SecretStr], NoDecode] = Field(
        default_factory=dict, description="More databases as name=URL separated by spaces."
    )
    database_rules: str = Field(
        "",
        description="What may be asked, separated by spaces: connection:-table, connection:-table.column or "
        "connection:+table, e.g. shop:-employees shop:-*.email; see docs/database.md.",
    )
    sql_model: str = Field(
        "models/starter-sql", description="Text-to-SQL model used while no language model is loaded."
    )
    sql_constrained: bool = Field(
        True, description="Let a local model write no SQL but queries over the database's own tables and columns."
    )
    sql_row_limit: int = Field(1000, ge=1, le=100_000, description="Most rows a query may return.")
    sql_timeout_s: float = Field(10.0, gt=0, description="Seconds a query may run.")
    sql_audit_days: int = Field(
        365, ge=0, description="Days for which the statements sent to databases are kept in the audit log; 0: for ever."
    )
    # Off unless chosen: values leave the database for the prompt, and for LLM_ENDPOINT's machine where that is set.
    sql_sample_values: int = Field(
        0,
        ge=0,
        le=50,
        description="Show a model the values of text columns that hold at most this many, e.g. 12; 0: none.",
    )

    @field_validator("auth_users", "api_keys", "llm_max_memory", mode="before")
    @classmethod
    def _split_colons(cls, value: object) -> object:
        return _pairs(value, ":")

    @field_validator("databases", mode="before")
    @classmethod
    def _split_equals(cls, value: object) -> object:
        return _pairs(value, "=")

    @field_validator("hf_endpoint")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if not _is_http_address(value):
            raise ValueError("expected an http or https address, e.g. https://huggingface.co")
        return value

    @property
    def may_download(self) -> bool:
        """Whether the Models page downloads: a download may fill the disk that several people share."""
        return self.model_downloads == "on" or (self.model_downloads == "auto" and not self.auth_users)

    @field_validator("data_dir", "models_dir")
    @classmethod
    def _from_root(cls, value: Path) -> Path:
        return ROOT / value


def _is_http_address(value: str) -> bool:
    try:
        url = urlsplit(value)
        # Both may raise ValueError: a port that is no number, a name that cannot be one.
        named = bool((url.hostname or "").encode("idna")) and url.port != 0
    except ValueError:
        return False
    plain = not (url.query or url.fragment or "@" in url.netloc) and not any(letter.isspace() for letter in value)
    return url.scheme in ("http", "https") and named and plain and value.isprintable()


def _pairs(value: object, separator: str) -> object:
    """ "a:1 b:2" -> {"a": "1", "b": "2"}; anything but text is left to pydantic."""
    if not isinstance(value, str):
        return value
    words = value.split()
    if any(separator not in word for word in words):
        raise ValueError(f"expected name{separator}value, several separated by spaces")
    return dict(word.split(separator, 1) for word in words)


def prepare_process() -> None:
    """Keep libraries offline and considerate. Call before any of them is imported."""
    for name, value in _LIBRARY_SETTINGS.items():
        if name == "PYTORCH_ALLOC_CONF" and (sys.platform == "win32" or "PYTORCH_CUDA_ALLOC_CONF" in os.environ):
            continue  # Windows has no such segments; the older name of the variable is the user's own choice
        os.environ.setdefault(name, value)
    _share_one_heap()


def _share_one_heap() -> None:
    """Have glibc's threads share one heap, unless MALLOC_ARENA_MAX is set.

    Each answer has a thread of its own, and heaps of their own kept what they once needed: 32 users cost 300 MiB more
    after two minutes, and more with every minute.
    """
    import ctypes

    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(OSError, AttributeError):  # another C library has no such thing
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def telemetry_left_on() -> tuple[str, ...]:
    """Variables that make libraries report or look things up, where the environment overrules `prepare_process`."""
    kept = (name for name in _LIBRARY_SETTINGS if name not in _NO_NETWORK)
    return tuple(name for name in kept if os.environ.get(name, "").lower() not in _OFF[_LIBRARY_SETTINGS[name]])


def proxies_in_use() -> dict[str, str]:
    """Proxies of the environment, as libraries find them: variable -> scheme://host:port, without a login."""
    found = {}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        address = os.environ.get(name.lower()) or os.environ.get(name) or ""
        if address:
            scheme = address.partition("://")[0] if "://" in address else "http"
            found[name] = f"{scheme}://{address.rpartition('://')[2].rpartition('@')[2].rstrip('/')}"
    return found


def keep_uploads_in(folder: Path) -> None:
    """Where gradio puts files on their way in; its default is a folder that all users of the computer share."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)


def load_settings() -> Settings:
    """Read the settings. Raises ConfigError that names the setting and what it accepts, never its value."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "?"
        raise ConfigError("app.bad_setting", name=name, reason=first["msg"]) from None
