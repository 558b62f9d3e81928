"""Choosing tokens from logits: greedy, nucleus sampling, beam search. Pure functions of tensors."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random

import torch

from dbgpt_lite.messages import Sampling

# Dividing by less would make the difference of two equal logits undefined.
_COLDEST = 1e-5
# So many of the likeliest tokens are looked at on a CPU before all are sorted: 150,000 take 18 ms to sort.
_LIKELY = 512


class Sampler:
    """The draws of one answer as `sampling` says; the same seed draws the same tokens, alone or in a batch.

    Each token takes one number of the answer's own generator, at which the cumulative distribution is inverted: so
    nothing depends on the device or on who else is answered in the same step.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = Random(sampling.seed)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.sampling.temperature <= 0

    def uniform(self) -> float:
        """The next number, evenly drawn from [0, 1)."""
        return self._random.random()

    def pick(self, logits: torch.Tensor) -> int:
        """A token id from logits of shape (vocabulary,)."""
        return int(draw(logits[None], [self]))


def draw(logits: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """A token id for each row of logits (rows, vocabulary), on their device; the host does not wait for it."""
    drawn = [(row, sampler) for row, sampler in enumerate(samplers) if not sampler.greedy]
    if not drawn:
        return logits.argmax(-1)
    facts = [(sampler.sampling.temperature, sampler.sampling.top_p, sampler.uniform()) for _, sampler in drawn]
    # Not blocking: a copy from ordinary memory that blocks would wait for the step that makes the logits.
    temperature, top_p, uniform = torch.tensor(facts).T.to(logits.device, non_blocking=True)
    if len(drawn) == len(samplers):
        return invert(logits, temperature, top_p, uniform)
    rows = torch.tensor([row for row, _ in drawn]).to(logits.device, non_blocking=True)
    tokens = logits.argmax(-1)
    tokens[rows] = invert(logits[rows], temperature, top_p, uniform)
    return tokens


def invert(logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Token ids (rows,) at `uniform` (rows,) of each row's cumulative distribution, likeliest token first.

    Nucleus sampling: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020. A token is kept
    while those before it make up less than `top_p`; the first always is.
    """
    wide = logits.float()
    scaled = (wide - wide.amax(-1, keepdim=True)) / temperature[:, None].clamp(min=_COLDEST)
    probabilities, order = _likeliest(scaled.softmax(-1), top_p)
    up_to = probabilities.cumsum(-1)
    kept = (up_to - probabilities < top_p[:, None]) | (top_p[:, None] >= 1)
    kept = kept & (probabilities > 0)
    kept[:, 0] = True
    last = kept.sum(-1, keepdim=True) - 1
    target = uniform[:, None] * up_to.gather(-1, last)
    place = torch.minimum((up_to <= target).sum(-1, keepdim=True), last)
    return order.gather(-1, place)[:, 0]


def _likeliest(probabilities: torch.Tensor, top_p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (rows, vocabulary), likeliest first, and their tokens; on a CPU no more than make up `top_p`."""
    if not probabilities.is_cuda and probabilities.shape[-1] > _LIKELY:
        likely, tokens = probabilities.topk(_LIKELY)
        if bool((likely.sum(-1) > top_p).all()):
            return likely, tokens
    return probabilities.sort(dim=-1, descending=True, stable=True)


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
