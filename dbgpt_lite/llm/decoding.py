"""Choosing tokens from logits: greedy, nucleus sampling, beam search. Pure functions of tensors."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from dbgpt_lite.messages import Sampling

# So many of the likeliest tokens are looked at before all are sorted.
_LIKELY = 512


class Sampler:
    """Draws one token after the other as `sampling` says; the same seed draws the same tokens.

    Nucleus sampling: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def pick(self, logits: torch.Tensor) -> int:
        """A token id from logits of shape (vocabulary,)."""
        if self._sampling.temperature <= 0:
            return int(logits.argmax())
        probabilities = (logits.float().cpu() / self._sampling.temperature).softmax(-1)
        weights, tokens = nucleus(probabilities, self._sampling.top_p)
        return int(tokens[torch.multinomial(weights, 1, generator=self._generator)])


def nucleus(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights, tokens), likeliest first: the fewest tokens of `probabilities` (vocabulary,) that make up `top_p`, at
    least one; weights of others, if they are there at all, are 0.

    Sorting a vocabulary of 150,000 takes 18 ms on a CPU, and the first few hundred tokens nearly always suffice.
    """
    likely, tokens = probabilities.topk(min(_LIKELY, len(probabilities)))
    if float(likely.sum()) <= top_p:
        likely, tokens = probabilities.sort(descending=True)
    kept = likely.cumsum(-1) - likely < top_p
    kept[0] = True
    return likely * kept, tokens


@dataclass(frozen=True, slots=True)
class Beam:
    """A finished sequence without its end token, and its mean log-probability a token."""

    tokens: tuple[int, ...]
    score: float


# (scores (beams, vocabulary), tokens of each beam, tokens that may still follow) -> scores, minus infinity where barred
Bar = Callable[[torch.Tensor, Sequence[tuple[int, ...]], int], torch.Tensor]
# (last tokens (beams,), which running beam each continues (beams,)) -> logits (beams, vocabulary)
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def beam_search(
    first: torch.Tensor, step: Step, count: int, max_tokens: int, end: Collection[int], bar: Bar | None = None
) -> list[Beam]:
    """The `count` best sequences, best first, by log-probability divided by length.

    The rules are those of transformers' ``generate(num_beams=count)`` with its defaults (length penalty 1, early
    stopping False), so both return the same. `first`: logits (vocabulary,) after the prompt. `bar` rules tokens out
    after the softmax: a beam that it leads where the model would not go scores as low as the model rates it.
    """
    width = max(2, 1 + len(end)) * count
    running: list[Beam] = [Beam((), 0.0)]
    finished: list[Beam] = []
    logits = first[None]
    for length in range(1, max_tokens + 1):
        scores = logits.float().log_softmax(-1)
        if bar is not None:
            scores = bar(scores, [beam.tokens for beam in running], max_tokens - length + 1)
        ranked = _best_continuations(scores, running, width)
        over = [tokens[-1] in end or length == max_tokens for _, tokens, _ in ranked]
        for (score, tokens, _), done in list(zip(ranked, over, strict=True))[:count]:
            if done:
                finished.append(Beam(tokens, score / length))
        finished = sorted(finished, key=lambda beam: -beam.score)[:count]
        going = [entry for entry, done in zip(ranked, over, strict=True) if not done][:count]
        if not going or (len(finished) == count and going[0][0] / length <= finished[-1].score):
            break
        running = [Beam(tokens, score) for score, tokens, _ in going]
        parents = torch.tensor([parent for _, _, parent in going], device=first.device)
        logits = step(torch.tensor([beam.tokens[-1] for beam in running], device=first.device), parents)
    return [Beam(_without_end(beam.tokens, end), beam.score) for beam in finished]


def _best_continuations(
    scores: torch.Tensor, running: list[Beam], width: int
) -> list[tuple[float, tuple[int, ...], int]]:
    """(summed log-probability, tokens, parent beam) of the `width` best next sequences, from each token's own."""
    scores = scores + torch.tensor([beam.score for beam in running], device=scores.device)[:, None]
    values, places = scores.flatten().topk(min(width, scores.numel()))
    vocabulary = scores.shape[-1]
    return [
        (value, (*running[place // vocabulary].tokens, place % vocabulary), place // vocabulary)
        for value, place in zip(values.tolist(), places.tolist(), strict=True)
        if value > -torch.inf
    ]


def _without_end(tokens: tuple[int, ...], end: Collection[int]) -> tuple[int, ...]:
    return tokens[:-1] if tokens and tokens[-1] in end else tokens
