"""The command line's download: a model of a hub -> a folder of MODELS_DIR, with progress, taken up where it stopped."""

import argparse
import sys
import threading
from functools import partial

from dbgpt_lite.cli_knowledge import Add
from dbgpt_lite.texts import memory_size, text


def add_download(add: Add) -> None:
    """Add `download`."""
    command = add("download", _download, "download a model from the hub into the models folder")
    command.add_argument("name", help="the repository, e.g. Qwen/Qwen2.5-0.5B-Instruct")
    command.add_argument("--revision", default="", help="branch, tag or commit (default: main)")
    command.add_argument("--as", dest="folder", default="", metavar="FOLDER", help="name of the folder in MODELS_DIR")
    command.add_argument(
        "--gguf", default="", metavar="FILE", help='GGUF files to take in place of the weights, e.g. "*Q4_K_M.gguf"'
    )


def _download(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dbgpt_lite.config import load_settings
    from dbgpt_lite.hub.client import Hub
    from dbgpt_lite.hub.download import download
    from dbgpt_lite.hub.partial import partial_folder, wanted

    settings = load_settings()
    wish = wanted(settings.hf_endpoint, options.name, options.revision, options.folder, options.gguf)
    bar = tqdm(unit="B", unit_scale=True, unit_divisor=1024, desc=wish.folder, file=sys.stderr)
    try:
        with bar, Hub(settings.hf_endpoint, settings.hf_token.get_secret_value()) as hub:
            folder = download(hub, settings.models_dir, wish, partial(_show, bar), threading.Event())
    except KeyboardInterrupt:
        kept, total = memory_size(bar.n), memory_size(bar.total or 0)
        folder = partial_folder(settings.models_dir, wish.folder)
        if folder.is_dir():
            print(text("hub.interrupted", done=kept, total=total, folder=folder), file=sys.stderr)
        raise
    print(text("hub.done", name=wish.name, folder=folder, size=memory_size(bar.n)))
    return 0


def _show(bar: "tqdm[object]", done: int, total: int) -> None:  # type: ignore[name-defined]  # noqa: F821
    bar.total = total
    if bar.n == 0:
        # What an earlier run has brought is no part of the speed.
        bar.initial = done
    bar.update(done - bar.n)
