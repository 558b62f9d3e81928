"""Settings -> Services: the only place where concrete objects are made and joined."""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import TracebackType

import sqlalchemy.exc

from dbgpt_lite.audit_trail import AuditTrail
from dbgpt_lite.chat.admission import Limits
from dbgpt_lite.chat.answerable import Answerable
from dbgpt_lite.chat.context import AutoContext, ContextSource, DatabaseContext, DocumentContext, PlainChat
from dbgpt_lite.chat.examples import ExampleMemory
from dbgpt_lite.chat.extractive import ExtractiveEngine
from dbgpt_lite.chat.queries import QueryDesk
from dbgpt_lite.chat.rewriting import FollowUps
from dbgpt_lite.chat.router import Router
from dbgpt_lite.chat.service import ChatService
from dbgpt_lite.chat.sql_follow_up import completed
from dbgpt_lite.chat.support import Near
from dbgpt_lite.config import ROOT, Settings
from dbgpt_lite.errors import Cancelled, ConfigError, DatabaseError, ModelError, UserError
from dbgpt_lite.hub.client import Hub
from dbgpt_lite.hub.downloads import Downloads
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.rerank import CrossEncoderReranker
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.llm.lazy import LazyEngine, lazy_engine
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.manager import ModelManager, ModelStatus
from dbgpt_lite.llm.model_folders import configured_folder
from dbgpt_lite.messages import Mode
from dbgpt_lite.metrics import Metrics
from dbgpt_lite.outbound import ConnectionLog, configured_hosts
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.query_store import QueryStore
from dbgpt_lite.sql.database import Databases
from dbgpt_lite.sql.rules import parse_rules
from dbgpt_lite.sql.sample_shop import build as build_sample_shop
from dbgpt_lite.sql.schema_search import SchemaSearch
from dbgpt_lite.store import ConversationStore
from dbgpt_lite.texts import Language

log = logging.getLogger(__name__)

SAMPLE_DATABASE = "shop"
SAMPLE_SPACE = "Lanternfish Goods 灯鱼商店"
MAIN_DATABASE = "main"
Watch = Callable[[ModelStatus], None]
Questions = Mapping[Language, Mapping[Mode, tuple[str, ...]]]


@dataclass(frozen=True)
class Services:
    """Everything a front end may use. A context manager: leaving it closes what is open."""

    settings: Settings
    store: ConversationStore
    chat: ChatService
    models: ModelManager
    knowledge: KnowledgeBase
    databases: Databases
    embedder: Embedder
    quoter: ExtractiveEngine
    sql_model: LazyEngine | None
    questions: Questions
    samples_ready: threading.Event
    queries: QueryStore
    memory: ExampleMemory
    desk: QueryDesk
    downloads: Downloads
    connections: ConnectionLog
    metrics: Metrics
    _ready: threading.Event = field(default_factory=threading.Event)
    _closing: threading.Event = field(default_factory=threading.Event)

    @property
    def ready(self) -> bool:
        """Whether the samples are indexed and the models of the default are in memory."""
        return self._ready.is_set()

    def start(self) -> None:
        """Warm up in the background: the page is usable at once, the first question finds everything loaded."""
        self.connect_model()
        self._read_schemas()
        self.samples_ready.clear()
        threading.Thread(target=self._warm, name="warm-up", daemon=True).start()

    def prepare(self, samples: bool = True, watch: Watch | None = None) -> None:
        """Make ready in the foreground, for the command line: the model that is set, and the sample documents.

        `watch` is told how the model's load goes.
        """
        self.connect_model()
        if samples:
            self._index_samples()
        for name in self.databases.names():
            # Auto mode weighs what it knows; a server that is down is told when it is asked.
            with suppress(DatabaseError):
                self.databases.get(name).schema()
        status = self.models.wait(watch=watch)
        if status.detail:
            raise status.detail

    def connect_model(self) -> None:
        """Load LLM_MODEL or connect to LLM_ENDPOINT; what goes wrong is told by models.status."""
        try:
            _connect_model(self.settings, self.models)
        except UserError as error:
            log.warning("%s", error)

    def close(self) -> None:
        """Close files and connections, free models."""
        self._closing.set()
        with ExitStack() as last_to_first:
            for part in (self.store, self.databases, self.knowledge, self.sql_model, self.models, self.downloads):
                if part is not None:
                    last_to_first.callback(part.close)

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self.close()

    def _warm(self) -> None:
        try:
            try:
                self._index_samples()
            finally:
                self.samples_ready.set()
            self.knowledge.warm()
            self.quoter.warm()
            self.memory.warm()
            self._take_up_jobs()
            if self.sql_model and self.models.engine.info.kind == "builtin":
                self.sql_model.warm().join()
        except Cancelled:
            return
        except Exception:
            # The app runs without its samples; the log says why they are missing.
            log.exception("warming up failed")
        self._ready.set()

    def _read_schemas(self) -> None:
        """Begin to read every connection's schema in the background, so that auto mode knows them."""
        for name in self.databases.names():
            self.databases.get(name).known_schema()

    def _take_up_jobs(self) -> None:
        """Begin in the background what an earlier run left: uploads to finish, spaces of another EMBEDDING_MODEL."""
        self.knowledge.remove_temporary(self.store.sources_in_use())
        for space_id in self.knowledge.outdated():
            log.info("embedding the documents of a space anew: EMBEDDING_MODEL has changed")
            self.knowledge.jobs.reembed(space_id)
        for space_id in self.knowledge.interrupted():
            self.knowledge.jobs.resume(space_id)

    def _index_samples(self) -> None:
        if self.settings.sample_data:
            with resources.as_file(resources.files("dbgpt_lite") / "samples" / "documents") as folder:
                self.knowledge.ensure_folder(SAMPLE_SPACE, folder, cancel=self._closing)


def build_services(settings: Settings, connections: ConnectionLog | None = None) -> Services:
    """Join everything. Opens files but loads no model. Raises ConfigError for what cannot be opened.

    `connections`: the log that watches this process; without one nothing is watched.
    """
    data = _data_dir(settings.data_dir)
    embedder = Embedder(model_path(settings.embedding_model), settings.embedding_device)
    quoter = ExtractiveEngine(embedder.embed)
    knowledge = KnowledgeBase(
        data / "knowledge",
        embedder,
        chunk_tokens=settings.knowledge_chunk_tokens,
        chunk_overlap=settings.knowledge_chunk_overlap,
        max_file_bytes=settings.upload_max_mb * 2**20,
        max_files=settings.upload_max_files,
        vector_store=settings.vector_store.get_secret_value(),
        reranker=_reranker(settings),
    )
    store = _store(settings, data)
    queries = QueryStore(store.engine, settings.sql_audit_days)
    databases = Databases(
        _database_urls(settings, data),
        settings.sql_row_limit,
        settings.sql_timeout_s,
        rules=parse_rules(settings.database_rules),
        audit=queries.audit,
        sample_values=settings.sql_sample_values,
    )
    models = _models(settings, quoter)
    sql_model = _sql_model(settings)
    prompts = Prompts(ROOT / "prompts")
    memory = ExampleMemory(queries, databases, quoter.near)
    samples_ready = threading.Event()
    samples_ready.set()
    follow_ups = FollowUps(lambda: models.engine, prompts, completed)
    sources: dict[Mode, ContextSource] = {
        "chat": PlainChat(),
        "documents": DocumentContext(knowledge, settings.knowledge_top_k, samples_ready, follow_ups),
        "database": DatabaseContext(
            databases,
            prompts,
            _sql_engine(models, sql_model),
            follow_ups,
            memory=memory,
            answerable=Answerable(quoter.near),
            search=_schema_search(embedder),
        ),
    }
    route = Router(knowledge, databases, quoter, settings.knowledge_top_k)
    everything: dict[Mode, ContextSource] = {**sources, "auto": AutoContext(sources, route, follow_ups, samples_ready)}
    metrics = Metrics()
    limits = Limits(settings.max_answers, settings.max_answers_per_user, settings.llm_time_limit)
    chat = ChatService(store, lambda: models.engine, everything, prompts, quoter.near, limits, metrics)
    services = Services(
        settings,
        store,
        chat,
        models,
        knowledge,
        databases,
        embedder,
        quoter,
        sql_model,
        _questions(),
        samples_ready,
        queries,
        memory,
        QueryDesk(databases, store, memory),
        Downloads(lambda: _hub(settings), settings.models_dir, settings.hf_endpoint),
        connections or ConnectionLog(configured_hosts(settings)),
        metrics,
    )
    metrics.show(
        {
            "running": lambda: chat.taken,
            "waiting": lambda: models.engine.waiting + (sql_model.waiting if sql_model else 0),
            "model_loaded": lambda: models.engine.info.kind != "builtin",
            "ready": lambda: services.ready,
        }
    )
    return services


def _hub(settings: Settings) -> Hub:
    return Hub(settings.hf_endpoint, settings.hf_token.get_secret_value())


@contextmanager
def audit_log(settings: Settings) -> Iterator[AuditTrail]:
    """The audit of these settings by itself, for statements that are sent without the app. Raises ConfigError."""
    store = _store(settings, _data_dir(settings.data_dir))
    try:
        yield AuditTrail(store.engine, settings.sql_audit_days)
    finally:
        store.close()


def _schema_search(embedder: Embedder) -> SchemaSearch:
    try:
        chinese = "zh" in embedder.facts.languages
    except ModelError:
        # Said when documents are asked for; tables are found by words alone.
        return SchemaSearch()
    return SchemaSearch(embedder.embed, lambda texts: embedder.embed(texts, "query"), chinese)


def _models(settings: Settings, fallback: Engine) -> ModelManager:
    idle_s = 60 * settings.llm_idle_unload_min
    return ModelManager(settings.models_dir, fallback, _load_options(settings), settings.llm_model, idle_s)


def _sql_engine(models: ModelManager, sql_model: LazyEngine | None) -> Callable[[], Engine]:
    """Queries are written by the loaded language model, or by the small SQL model while none is loaded."""

    def choose() -> Engine:
        engine = models.engine
        return sql_model if engine.info.kind == "builtin" and sql_model else engine

    return choose


@contextmanager
def sql_writer(settings: Settings, watch: Watch | None = None) -> Iterator[tuple[Engine, Near]]:
    """The engine that writes queries under these settings, loaded, and what compares words by meaning, without the
    rest of the app. `watch` is told how the model's load goes. Raises UserError."""
    quoter = ExtractiveEngine(Embedder(model_path(settings.embedding_model), settings.embedding_device).embed)
    models = _models(settings, quoter)
    sql_model = _sql_model(settings)
    try:
        _connect_model(settings, models)
        if problem := models.wait(watch=watch).detail:
            raise problem
        engine = _sql_engine(models, sql_model)()
        if engine is quoter:
            raise ConfigError("app.no_sql_writer")
        engine.count_text("")  # one that loads on its first use is loaded by now, and its facts are final
        yield engine, quoter.near
    finally:
        models.close()
        if sql_model:
            sql_model.close()


def _connect_model(settings: Settings, models: ModelManager) -> None:
    if settings.llm_endpoint:
        key = settings.llm_api_key.get_secret_value()
        models.connect(settings.llm_endpoint, settings.llm_endpoint_model, key)
    elif settings.llm_model:
        models.load(settings.llm_model)


def _sql_model(settings: Settings) -> LazyEngine | None:
    if not settings.sql_model:
        return None
    folder = configured_folder(settings.sql_model, settings.models_dir)
    try:
        options = LoadOptions(
            device_map="cpu", constrained=settings.sql_constrained, prefix_bytes=_prefix_bytes(settings)
        )
        return lazy_engine(folder, lambda: load(folder, options), settings.sql_constrained)
    except UserError as error:
        log.warning("SQL_MODEL: %s", error)
        return None


def _load_options(settings: Settings) -> LoadOptions:
    return LoadOptions(
        quantization=settings.llm_quantization,
        dtype=settings.llm_dtype,
        device_map=settings.llm_device_map,
        max_memory=settings.llm_max_memory,
        context=settings.llm_context,
        users=settings.llm_users,
        wide_bytes=None if settings.llm_wide_memory is None else int(settings.llm_wide_memory * 2**30),
        chat_format=settings.llm_chat_format,
        constrained=settings.sql_constrained,
        cache_dir=settings.data_dir / "model-cache",
        prefix_bytes=_prefix_bytes(settings),
    )


def _prefix_bytes(settings: Settings) -> int:
    return int(settings.llm_prefix_memory * 2**30)


def _data_dir(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError:
        raise ConfigError("app.data_dir") from None
    return folder


def _database_urls(settings: Settings, data: Path) -> dict[str, str]:
    """Connections by name; the first is the default. The sample comes last, so that one's own database leads."""
    urls: dict[str, str] = {}
    if main := settings.database_url.get_secret_value():
        urls[MAIN_DATABASE] = main
    for name, url in settings.databases.items():
        if name in urls:
            raise ConfigError("app.database_twice", name=name)
        urls[name] = url.get_secret_value()
    if settings.sample_data:
        shop = data / "sample_shop.db"
        build_sample_shop(shop)
        urls.setdefault(SAMPLE_DATABASE, f"sqlite:///{shop}")
    return urls


def _reranker(settings: Settings) -> CrossEncoderReranker | None:
    folder = model_path(settings.reranker_model)
    return CrossEncoderReranker(folder, settings.embedding_device) if folder else None


def _store(settings: Settings, data: Path) -> ConversationStore:
    url = settings.store_url.get_secret_value() or f"sqlite:///{data / 'store.db'}"
    try:
        return ConversationStore(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, TypeError):
        # The cause names host, user or a part of the password; the setting's name is all that a log needs.
        raise ConfigError("app.store_failed") from None


def model_path(setting: str) -> str:
    """A model folder as it is set, counted from the project; "" stays ""."""
    return str(ROOT / setting) if setting else ""


def _questions() -> Questions:
    """Example questions on the samples: language -> mode -> questions."""
    file = resources.files("dbgpt_lite") / "samples" / "questions.json"
    by_mode: dict[Mode, dict[Language, list[str]]] = json.loads(file.read_text(encoding="utf-8"))
    return {language: {mode: tuple(asked[language]) for mode, asked in by_mode.items()} for language in ("en", "zh")}
