"""How long after Stop is the engine's place free? Through ChatService, on the CPU, while reading and while writing.

The model is the 45M-parameter starter with its window filled; larger models stop between two of their layers too.

    python benchmarks/stop.py [--runs 20]
"""

import argparse
import random
import tempfile
import threading
import time
from pathlib import Path

from dbgpt_lite.config import ROOT, prepare_process

prepare_process()

from dbgpt_lite.chat.context import PlainChat  # noqa: E402
from dbgpt_lite.chat.service import ChatService  # noqa: E402
from dbgpt_lite.llm.engine import LocalEngine  # noqa: E402
from dbgpt_lite.llm.loader import LoadOptions, load  # noqa: E402
from dbgpt_lite.messages import ChatRequest, Sampling, Token  # noqa: E402
from dbgpt_lite.prompts import Prompts  # noqa: E402
from dbgpt_lite.store import ConversationStore  # noqa: E402

OWNER = "user:bench"


def stopped_in(chat: ChatService, engine: LocalEngine, store: ConversationStore, words: int, wait_s: float) -> float:
    """Ask, stop after the first token (wait_s 0) or `wait_s` after the engine began, and time the freeing."""
    conversation = store.create(OWNER).id
    question = " ".join(str(random.random()) for _ in range(words))
    run = chat.run(ChatRequest(conversation, question, OWNER, "chat", sampling=Sampling(0.9, 1.0, 1000)))
    seen = threading.Event()

    def read() -> None:
        for event in run.events(0.01):
            if isinstance(event, Token):
                seen.set()

    reader = threading.Thread(target=read)
    reader.start()
    if wait_s:
        while not engine.busy:
            time.sleep(0.001)
        time.sleep(wait_s)
    else:
        seen.wait(60)
    started = time.perf_counter()
    assert chat.stop(OWNER, conversation)
    while engine.busy:
        time.sleep(0.0005)
    took = time.perf_counter() - started
    reader.join()
    return took


def main() -> None:
    """Print median and worst of both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    engine = load(ROOT / "models" / "starter-sql", LoadOptions(device_map="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        store = ConversationStore(f"sqlite:///{Path(folder) / 'store.db'}")
        chat = ChatService(store, lambda: engine, {"chat": PlainChat()}, Prompts(ROOT / "prompts"))
        stopped_in(chat, engine, store, 5, 0)
        for name, words, wait_s in (("reading a long prompt", 60, 0.1), ("writing", 5, 0.0)):
            took = sorted(stopped_in(chat, engine, store, words, wait_s) * 1000 for _ in range(runs))
            print(f"{name}: median {took[runs // 2]:.1f} ms, worst {took[-1]:.1f} ms of {runs}")


if __name__ == "__main__":
    main()
