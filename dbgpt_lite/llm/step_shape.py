"""Which steps are recorded on a GPU (gpu_step.py), and the room that their attention takes. Pure: the plan asks too."""

from math import ceil, prod

# Tokens of a prompt read in one go. Widening the weights costs as much as 200 tokens, and other answers wait meanwhile.
CHUNK = 1024
ROWS = (1, 2, 4, 8, 16, 32, 64)
_PIECES = 3  # of these, the largest are recorded for short pieces of prompts too
# Tokens of prompts that a pass is recorded for but for its attention (gpu_recorded.py). More keep a GPU busy for longer
# than Python takes to start them.
READINGS = (16, 32, 64, 128, 192, 256, 320)
SHORTEST = 1024  # cached tokens that a step is recorded for at least
# Bytes of one layer's cache that the rows of a short piece may read, each for itself, before it is faster to read them
# once for all, though Python starts every kernel then: measured on an H200 with ChatGLM2-6B and a 33B Llama.
READ_BY_ROWS = 6 * 10**8
# Cached tokens a block of attention takes: few for few conversations, so that all multiprocessors have some.
SPLITS = (64, 256)
_ENOUGH_BLOCKS = 512
_TOGETHER = 512  # dimensions of the heads that a block takes


def row_sizes(most: int) -> list[int]:
    """The numbers of rows that steps of up to `most` rows are recorded for."""
    return [size for size in ROWS if size // 2 < most]


def piece_sizes(most: int) -> list[int]:
    """Those that short pieces of prompts, of up to `most` tokens, are recorded for."""
    return row_sizes(most)[-_PIECES:]


def reading_sizes(chunk: int) -> list[int]:
    """Those of READINGS that are of use where a pass reads up to `chunk` tokens."""
    return [size for before, size in zip((0, *READINGS), READINGS, strict=False) if before < chunk]


def covered(window: int) -> list[int]:
    """The lengths of caches that steps are recorded for; the last is no shorter than the window."""
    sizes = [SHORTEST]
    while sizes[-1] < window:
        sizes.append(4 * sizes[-1])
    return sizes


def together(share: int, dim: int) -> int:
    """How many heads of `dim` a block takes, of `share` that read the same keys."""
    return next(count for count in (4, 2, 1) if share % count == 0 and count * dim <= _TOGETHER)


def room_shape(rows: int, heads: int, groups: int, dim: int, longest: int) -> tuple[tuple[int, int, int, int], int]:
    """The shape of what attention joins its parts in (see decode.Room), and cached tokens a part.

    `groups`: of heads that a block takes; `longest`: tokens of a conversation, the new one counted.
    """
    few, many = SPLITS
    split = many if rows * groups * ceil(longest / many) >= _ENOUGH_BLOCKS else few
    return (rows, heads, ceil(longest / split), dim + 2), split


def furthest(rows: int, groups: int, dim: int) -> int:
    """How many tokens a conversation may have for its last ones to be read as `rows` rows of a step, in 16 bits."""
    return READ_BY_ROWS // (4 * rows * groups * dim)


def join_size(heads: int, kv_heads: int, dim: int, window: int, slots: int, short: int) -> int:
    """Numbers (float32) in which every recorded step can join its parts, one at a time: steps of `slots` rows over the
    whole window, pieces of up to `short` tokens as far as they are read so."""
    groups = heads // together(heads // kv_heads, dim)
    steps = [(rows, longest) for rows in row_sizes(slots) for longest in covered(window)]
    for rows in piece_sizes(short):
        steps += [(rows, longest) for longest in covered(min(window, furthest(rows, groups, dim)))]
    return max(prod(room_shape(rows, heads, groups, dim, min(longest, window))[0]) for rows, longest in steps)
