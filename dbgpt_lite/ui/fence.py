"""What a request may name as a file: something uploaded here, nothing else.

Gradio moves every file that an event's data names into its cache before a handler sees it. It compares the path with
its upload folder only when it was launched by itself, not when it is mounted in another app, and it fetches addresses.
Without this fence a text box filled with ``{"path": "/etc/passwd", "meta": ...}`` hands the file to whoever asks.
"""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder


class FencedBlocks(gr.Blocks):  # type: ignore[misc]
    """Blocks that look at an event's data before Gradio does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Lets Gradio's own check of paths apply as well.
        self.has_launched = True

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any, **options: Any) -> Any:
        """Refuse data that names anything but an uploaded file."""
        if not files_are_uploads(inputs, Path(get_upload_folder())):
            raise gr.Error("Only uploaded files can be used here.", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *more, **options)


def files_are_uploads(data: Any, folder: Path) -> bool:
    """Whether every mapping in `data` is a file in `folder`: no component of this page takes other mappings."""
    if isinstance(data, list | tuple):
        return all(files_are_uploads(item, folder) for item in data)
    return not isinstance(data, dict) or _is_upload(data.get("path"), folder)


def _is_upload(path: object, folder: Path) -> bool:
    if not isinstance(path, str) or "\0" in path:
        return False
    file = Path(path)
    return file.is_absolute() and file.resolve().is_relative_to(folder.resolve()) and file.is_file()
