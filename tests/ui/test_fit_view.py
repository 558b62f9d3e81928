"""What a plan looks like on the Models page."""

import json
from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.plan import plan
from dbgpt_lite.llm.units import GIB
from dbgpt_lite.ui.fit_view import fit_panels
from tests.llm.configs import CONFIGS


@pytest.mark.parametrize(("language", "words"), [("en", "84 GiB of it are experts"), ("zh", "84 GiB 是专家层")])
def test_each_panel_says_what_stays_unquantized(language: Any, words: str, tmp_path: Path) -> None:
    config = CONFIGS["mixtral-8x7b"] | {"model_type": "granitemoe"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint(tmp_path, config, TaskFacts(), "bin", (), (), 0)
    panels = fit_panels(
        {
            wanted: plan(
                checkpoint,
                dtype="float16",
                quantization=wanted,
                context=2048,
                devices=(Device("cuda:0", 200 * GIB),),
            )
            for wanted in ("none", "nf4")
        },
        language,
    )
    plain, quantized = panels.split('data-numbers="nf4"')
    assert words not in plain
    assert words in quantized
