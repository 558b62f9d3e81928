"""Kernels compiled in the background, while the weights that they are for are being read."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from dbgpt_lite.llm.kernels.nvrtc import CudaError, Program, binary

log = logging.getLogger(__name__)

_AT_ONCE = 2


def compile_ahead(programs: Sequence[Program], capability: tuple[int, int]) -> threading.Thread:
    """Begin with the first. Who asks for one meanwhile waits for it; a failure shows where the kernel is used."""
    thread = threading.Thread(target=_compile, args=(programs, capability), name="kernels", daemon=True)
    thread.start()
    return thread


def _compile(programs: Sequence[Program], capability: tuple[int, int]) -> None:
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="kernel") as pool:
        for done in [pool.submit(binary, *program, capability) for program in programs]:
            try:
                done.result()
            except (CudaError, OSError) as error:
                log.debug("a kernel was not compiled ahead: %s", error)
