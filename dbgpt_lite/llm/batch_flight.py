"""A step under way: the logits that it will leave on the device, and the answers whose next tokens they are for.

A GPU that waits for Python between two steps loses a tenth of its time with many readers. So where it is known without
the tokens being drawn which rows the next step has, it is started with them as they lie on the device, before the host
reads them ("asynchronous scheduling": https://docs.vllm.ai/en/latest/configuration/optimization).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dbgpt_lite.llm.batch_jobs import AnswerJob
from dbgpt_lite.llm.decoding import draw


@dataclass(frozen=True, slots=True)
class Flight:
    """`logits`: (answers, vocabulary), valid until the model's next pass."""

    answers: Sequence[AnswerJob]
    logits: Tensor

    def draw(self, live: Collection[AnswerJob]) -> "Drawing":
        """Draw the next token of each answer; those that are not `live` any more get one that nobody hears of."""
        for answer, row in zip(self.answers, self.logits, strict=True):
            if answer in live:
                answer.mask(row)
        return Drawing(draw(self.logits, [answer.sampler for answer in self.answers]))

    def next_rows(self, live: Collection[AnswerJob]) -> list[tuple[int, int]] | None:
        """Slots and lengths of the next step, if they are the same answers whatever is drawn; else None.

        An answer that turns out to have ended has a row for nothing; it is written behind all that its slot is known
        to hold.
        """
        if len(self.answers) != len(live) or any(answer not in live for answer in self.answers):
            return None
        rows = [row for answer in self.answers if (row := answer.next_row) is not None]
        return rows if len(rows) == len(self.answers) else None


class Drawing:
    """Tokens (answers,) drawn on a device, on their way to the host."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        # Into memory that the device reaches by itself.
        self._host = tokens.to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if tokens.is_cuda else None  # type: ignore[no-untyped-call]
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(tokens.device))

    def read(self) -> list[int]:
        """Waits for them, and for nothing that was started after them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return [int(token) for token in self._host.tolist()]
