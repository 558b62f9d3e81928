"""Services for the page's tests: the real chat service, store and databases around a scripted engine and fake indexes.

What happens is chosen by words in the question: "slow" streams until it is stopped, "fail" raises, "rows" asks the
shop, "cite" cites passages, "hostile" answers with every kind of markup; anything else is echoed.
"""

import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fake_desk import FakeDesk
from fake_knowledge import HOSTILE, PASSAGES, FakeKnowledge

from dbgpt_lite.chat.context import AutoContext, Context, Route
from dbgpt_lite.chat.service import ChatService
from dbgpt_lite.config import ROOT, Settings
from dbgpt_lite.errors import ModelError
from dbgpt_lite.hub.client import Hub
from dbgpt_lite.hub.downloads import Downloads
from dbgpt_lite.llm.chat_choice import FormatChoice
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.manager import ModelStatus
from dbgpt_lite.llm.model_folders import ModelFolder
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.units import GIB
from dbgpt_lite.messages import (
    ChatEvent,
    ChatRequest,
    EngineInfo,
    Found,
    Message,
    Mode,
    Prompt,
    Rows,
    Sampling,
    SqlAttempt,
    SqlTried,
    Step,
    Usage,
)
from dbgpt_lite.metrics import Metrics
from dbgpt_lite.outbound import ConnectionLog
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.query_store import QueryStore
from dbgpt_lite.sql.database import Databases
from dbgpt_lite.store import ConversationStore

HOSTILE_ANSWER = (
    f"{HOSTILE} [click](javascript:window.crossed=1) ![pixel](http://127.0.0.1:1/pixel.png) "
    "${window.crossed=1} {{constructor}} `</code><img src=x onerror=window.crossed=1>` [1]\n\n"
    '```html"><img src=x onerror=window.crossed=1>\n</code></pre><img src=x onerror=window.crossed=1>\n```\n'
    "[1]: http://evil.example/\n\n| a |\n|---|\n| <b onclick=x>cell</b> |\n\n[page](https://example.com/ok)"
)
LONG_ANSWER = """A **query plan** tells you three things [1]:

1. which index is used, e.g. `orders_customer`
2. how tables are joined
3. where rows are sorted

| Operation | Cost | Rows |
|---|--:|--:|
| scan | 120 | 20,000 |
| search | 4 | 12 |

```python
def plan(sql: str) -> list[str]:
    \"\"\"Rows of EXPLAIN QUERY PLAN.\"\"\"
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
```

> Measure before you tune. 先测量，再优化。

See the [manual](https://sqlite.org/eqp.html) for more [2]."""


class ScriptedEngine:
    """An Engine whose answer follows from the question."""

    def __init__(self) -> None:
        self.info = EngineInfo("built-in assistant", "builtin", 4096)
        self.waiting = 0
        self.busy = threading.Event()
        self.idle = threading.Event()

    def count(self, messages: Sequence[Message]) -> int:
        return sum(self.count_text(message.content) for message in messages)

    def count_text(self, text: str) -> int:
        return max(len(text) // 4, 1)

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Usage]:
        asked = prompt.question
        if "fail" in asked:
            raise ModelError("llm.out_of_memory_answering", name="guanaco-33b")
        self.idle.clear()
        self.busy.set()
        try:
            pieces = _pieces(_reply(prompt))
            for number, piece in enumerate(pieces):
                if cancel.is_set():
                    yield Usage(420, number, first_token_s=0.2, seconds=0.9, finish_reason="cancelled")
                    return
                yield piece
                cancel.wait(0.05 if "slow" in asked else 0.004)
            yield Usage(420, len(pieces), cached_tokens=128, queue_s=0.3, first_token_s=0.42, seconds=2.5)
        finally:
            self.busy.clear()
            self.idle.set()

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        return []

    def close(self) -> None: ...


def _reply(prompt: Prompt) -> str:
    asked = prompt.question
    if "slow" in asked:
        return "word " * 4000
    if "hostile" in asked:
        return HOSTILE_ANSWER
    if "cite" in asked:
        return "“The Drift lantern runs for 120 hours on its lowest setting.” [1]"
    if "long" in asked:
        return LONG_ANSWER
    if "时间" in asked:
        return "“潮汐电饭煲的快煮程序需要 28 分钟” [2]"
    if prompt.table is not None:
        return f"There are **{len(prompt.table.rows)}** matching rows."
    return f"You said: {asked}"


def _pieces(text: str) -> list[str]:
    return [text[at : at + 4] for at in range(0, len(text), 4)]


class ScriptedSource:
    """Gathers by words in the question, in whatever mode."""

    def __init__(self, databases: Databases, mode: Mode) -> None:
        self._databases = databases
        self._mode = mode

    def gather(
        self, request: ChatRequest, history: Sequence[Message], cancel: threading.Event
    ) -> Generator[ChatEvent, None, Context]:
        if any(word in request.question for word in _ASKED):
            return (yield from self._query(request))
        if any(word in request.question for word in ("cite", "hostile", "long", "时间")):
            yield Step("search", {"count": 3})
            yield Found(PASSAGES)
            return Context("documents", "documents", request.source, passages=PASSAGES)
        return Context("chat", self._mode)

    def _query(self, request: ChatRequest) -> Generator[ChatEvent, None, Context]:
        database = self._databases.get(request.source)
        yield Step("sql_write", {"database": database.name})
        bad = SqlAttempt("SELECT nmae FROM items", "There is no column nmae in items. Did you mean name?")
        yield SqlTried(bad)
        sql = next((sql for word, sql in _ASKED.items() if word in request.question), _ASKED["rows"])
        good = SqlAttempt(sql, method="beam 2")
        yield SqlTried(good)
        yield Step("sql_run", {"database": database.name})
        table = database.run(sql, who=request.owner, origin=request.origin)
        yield Rows(sql, table)
        variables = {"sql": sql, "rows": "..."}
        return Context(
            "rows", "database", database.name, variables=variables, attempts=(bad, good), sql=sql, table=table
        )


SIZES: dict[str, dict[str, Any]] = {
    "guanaco-33b-merged": {
        "model_type": "llama",
        "hidden_size": 6656,
        "intermediate_size": 17920,
        "num_hidden_layers": 60,
        "num_attention_heads": 52,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "chatglm2-6b": {
        "model_type": "chatglm",
        "hidden_size": 4096,
        "ffn_hidden_size": 13696,
        "num_layers": 28,
        "num_attention_heads": 32,
        "kv_channels": 128,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "padded_vocab_size": 65024,
        "seq_length": 32768,
        "add_qkv_bias": True,
    },
}


class FakeModels:
    """ModelManager's interface without models: loading runs to its end in steps of `status` being read."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.asked: tuple[str, str | None, str] = ("", None, "")
        self._status = ModelStatus("builtin")

    @property
    def status(self) -> ModelStatus:
        now = self._status
        if now.state == "loading":
            progress = now.progress + 0.25
            self._status = replace(now, progress=progress) if progress < 1 else self._loaded(now.name)
        return now

    def _loaded(self, name: str) -> ModelStatus:
        if name == "broken-7b":
            return ModelStatus("failed", name, ModelError("llm.damaged_file", name=name, file="model-1.safetensors"))
        self.engine.info = EngineInfo(name, "local", 4096, "cuda:0", "nf4")
        return ModelStatus("ready", name)

    def folders(self) -> list[ModelFolder]:
        return [
            ModelFolder(
                "guanaco-33b-merged",
                "llama",
                65_000_000_000,
                tasks=("chat",),
                chat_format=FormatChoice("guanaco", "family"),
            ),
            ModelFolder("chatglm2-6b", "chatglm", 12_500_000_000, tasks=("chat",)),
            ModelFolder("broken-7b", "llama", 13_000_000_000, tasks=("chat",)),
            ModelFolder("half-copied", "", 4096, ModelError("llm.no_weights", name="half-copied")),
            ModelFolder("starter-sql", "llama", 32_000_000, tasks=("sql",)),
        ]

    def plan(self, name: str, quantization: str) -> Plan:
        """Real plans of published sizes for one supposed card."""
        if name == "broken-7b":
            raise ModelError("llm.damaged_file", name=name, file="config.json")
        checkpoint = Checkpoint(Path(name), SIZES[name], TaskFacts(), "bin", (), (), 0)
        devices = (Device("cuda:0", 24 * GIB, "NVIDIA GeForce RTX 3090"), Device("cpu", 64 * GIB, bandwidth=2e10))
        return plan(checkpoint, dtype="float16", quantization=quantization, context=0, devices=devices)

    def load(self, name: str, quantization: str | None = None, chat_format: str = "") -> None:
        self.asked = (name, quantization, chat_format)
        self._status = ModelStatus("loading", name)

    def cancel(self) -> None:
        self._status = ModelStatus("builtin")

    def unload(self) -> None:
        self._status = ModelStatus("builtin")
        self.engine.info = EngineInfo("built-in assistant", "builtin", 4096)


@dataclass(frozen=True)
class FakeServices:
    """The fields of bootstrap.Services that the page reads."""

    settings: Settings
    store: ConversationStore
    chat: ChatService
    models: FakeModels
    knowledge: FakeKnowledge
    databases: Databases
    desk: FakeDesk
    queries: QueryStore
    questions: dict[str, dict[str, list[str]]]
    downloads: Downloads
    connections: ConnectionLog
    engine: ScriptedEngine = field(repr=False)
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def ready(self) -> bool:
        return True


def make_services(folder: Path, engine: Any = None, **settings: Any) -> FakeServices:
    """Everything on files in `folder`. `engine` answers; without one, a scripted one."""
    settings = {"models_dir": folder / "models", "hf_endpoint": "http://127.0.0.1:9", **settings}
    chosen = Settings(data_dir=folder, _env_file=None, **settings)
    store = ConversationStore(f"sqlite:///{folder / 'store.db'}")
    queries = QueryStore(store.engine)
    databases = Databases({"shop": f"sqlite:///{_sample_database(folder)}"}, audit=queries.audit)
    engine = engine or ScriptedEngine()
    sources: Any = {mode: ScriptedSource(databases, mode) for mode in ("chat", "documents", "database")}
    sources["auto"] = AutoContext(sources, _route)
    chat = ChatService(store, lambda: engine, sources, Prompts(ROOT / "prompts"))
    desk = FakeDesk(databases, store, queries.audit)
    models, knowledge = FakeModels(engine), FakeKnowledge()
    downloads = Downloads(lambda: Hub(chosen.hf_endpoint), chosen.models_dir, chosen.hf_endpoint)
    return FakeServices(
        chosen,
        store,
        chat,
        models,
        knowledge,
        databases,
        desk,
        queries,
        _QUESTIONS,
        downloads,
        ConnectionLog({"db.example": "DATABASE_URL"}),
        engine,
    )


def _route(request: ChatRequest) -> Route:
    if any(word in request.question for word in _ASKED):
        return Route("database")
    cited = any(word in request.question for word in ("cite", "hostile", "long", "时间"))
    return Route("documents" if cited else "chat")


def _sample_database(folder: Path) -> Path:
    file = folder / "shop.db"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, name TEXT, price REAL, note TEXT)")
        db.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item_id INTEGER REFERENCES items(id))")
        if not db.execute("SELECT count(*) FROM items").fetchone()[0]:
            rows = [(n, f"Item {n}" if n % 2 else f"商品 {n}", n * 1.25, None) for n in range(4, 251)]
            db.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", [
                (1, HOSTILE, 1.5, "=cmd|' /C calc'!A0"), (2, "灯笼", 20.0, "中文备注"), (3, "x" * 300, -3.0, None),
                *rows,
            ])  # fmt: skip
        for statement in _TABLES:
            db.execute(statement)
        if not db.execute("SELECT count(*) FROM customers").fetchone()[0]:
            cities = ("London", "上海", "Berlin", "São Paulo", "Tōkyō", "Llanfairpwllgwyngyllgogerychwyrndrobwll")
            spent = [(cities[n * n % 11 % 6], n * 17.25) for n in range(60)]
            db.executemany("INSERT INTO customers VALUES (?, ?)", spent)
            months = [(f"2025-{m:02d}", 42_000 + m * m * 310.5, 39_000 + m * 900) for m in range(1, 13)]
            db.executemany("INSERT INTO months VALUES (?, ?, ?)", months)
            chinese = [("上海", 18), ("北京", 15), ("广州", 9), ("成都", 7), ("呼和浩特", 2)]
            db.executemany("INSERT INTO 各城市客户 VALUES (?, ?)", chinese)
            big = [(2**63 - 1, b"\0\1", ""), (-(2**53) - 1, None, "NULL"), (7, b"", " two\n lines")]
            db.executemany("INSERT INTO oddities VALUES (?, ?, ?)", big)
    db.close()
    return file


_TABLES = (
    "CREATE TABLE IF NOT EXISTS customers (city TEXT, spent REAL)",
    "CREATE TABLE IF NOT EXISTS months (month TEXT, revenue REAL, costs REAL)",
    "CREATE TABLE IF NOT EXISTS 各城市客户 (城市 TEXT, 客户数 INTEGER)",
    "CREATE TABLE IF NOT EXISTS oddities (big INTEGER, blob BLOB, text TEXT)",
)


_ASKED = {
    "cities": "SELECT city, count(*) AS customers, sum(spent) AS spent FROM customers GROUP BY city ORDER BY 2 DESC",
    "months": "SELECT month, revenue, costs FROM months ORDER BY month DESC",
    "城市": "SELECT 城市, 客户数 FROM 各城市客户 ORDER BY 客户数 DESC",
    "rows": "SELECT id, name, price, note FROM items ORDER BY id",
}
"""The query for a word of the question."""

_QUESTIONS = {
    "en": {
        "documents": ["cite: How long does the Drift lantern run?", "What is the daily meal allowance?"],
        "database": ["rows: Which products are there?", "How many customers are there in each city?"],
        "chat": ["What can you do?", "How do I connect my own MySQL database?"],
    },
    "zh": {
        "documents": ["潮汐电饭煲的快煮程序需要多长时间？", "工龄满五年有多少天年假？"],
        "database": ["一共有多少位客户？", "每个城市各有多少客户？"],
        "chat": ["你能做什么？", "怎么连接我自己的 MySQL 数据库？"],
    },
}  # fmt: skip
