"""Productions of a parametric grammar and their text.

The text is llguidance's dialect of Lark. Every rule may carry one 64-bit number, handed down from rule to rule and
asked by conditions: https://github.com/guidance-ai/llguidance/blob/main/docs/parametric.md
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_ANY_CASE = re.compile(r"\(\?i:((?:[^()\\]|\\.)*)\)")
_CALL = re.compile(r"[a-z][a-z0-9_]*(::\S+)?")


@dataclass(slots=True)
class Rules:
    """Terminals (upper case) and rules (lower case) of one grammar."""

    terminals: dict[str, str] = field(default_factory=dict)
    rules: dict[str, list[tuple[tuple[str, ...], str]]] = field(default_factory=dict)

    def add(self, name: str, *bodies: str, when: str = "") -> None:
        """Alternatives of the rule `name`; `when` is their condition.

        A body is symbols separated by spaces. `rule` hands the number on, `rule::bit_or(0x3)` changes it,
        `rule::0x0` starts anew.
        """
        self.rules.setdefault(name, []).extend((tuple(body.split()), when) for body in bodies)

    def add_factored(self, name: str, bodies: Iterable[str]) -> None:
        """The same alternatives as with `add`, those that begin alike written once: fewer rules to try at a place."""
        groups: dict[str, list[str]] = {}
        for body in bodies:
            first, _, rest = body.strip().partition(" ")
            groups.setdefault(first, []).append(rest)
        for place, (first, rests) in enumerate(groups.items()):
            if len(rests) == 1 or "" in rests or _is_rule(first):
                self.add(name, *(f"{first} {rest}" for rest in rests))
            else:
                self.add_factored(f"{name}_x{place}", rests)
                self.add(name, f"{first} {name}_x{place}")

    def terminal(self, name: str, pattern: str, but: str = "") -> str:
        """Define a terminal by its regular expression, without what `but` matches; returns `name`.

        In `pattern`, `(?i:words)` is all in lower or all in upper case: mixed spellings only cost time, and Unicode's
        idea of case takes \u017f for an s.
        """
        plain = _ANY_CASE.sub(lambda found: f"(?:{found[1]}|{found[1].upper()})", pattern)
        self.terminals[name] = _regex(plain) + (f" & ~{_regex(but)}" if but else "")
        return name

    def text(self) -> str:
        """The grammar; rules that cannot be reached from `start` are left out."""
        self.rules["nothing"] = [(('""',), ""), (("STAR",), both("bit_set(0)", "bit_clear(0)"))]
        self._prune()
        numbered = self._numbered()
        reached = self._reached()
        lines = [self._rule(name, numbered) for name in self.rules if name in reached]
        used = {symbol for name in reached for symbols, _ in self.rules[name] for symbol in symbols}
        lines += [f"{name}: {pattern}" for name, pattern in self.terminals.items() if name in used]
        return "\n".join(lines) + "\n"

    def _rule(self, name: str, numbered: set[str]) -> str:
        head = f"{name}::_" if name in numbered else name
        # llguidance 1.9 puts a body of one rule, and the only body of a rule, in the callers' place, and fails where
        # the number changes on the way: no body may be either.
        rules = [(("nothing", *body) if _only_changes(body) else body, when) for body, when in self.rules[name]]
        if name in numbered and len(rules) == 1 and not rules[0][1]:
            rules = [(rules[0][0], "bit_set(0)"), (rules[0][0], "bit_clear(0)")]
        bodies = [
            " ".join(_symbol(symbol, numbered) for symbol in symbols) + (f" %if {when}" if when else "")
            for symbols, when in rules
        ]
        return f"{head}: " + "\n  | ".join(bodies)

    def _prune(self) -> None:
        """Drop bodies with a rule that has none, e.g. of short names where no table's name can be shortened."""
        while True:
            empty = {_name(s) for bodies in self.rules.values() for body, _ in bodies for s in body if _is_rule(s)}
            empty -= {name for name, bodies in self.rules.items() if bodies}
            if not empty:
                return
            for name, bodies in self.rules.items():
                self.rules[name] = [(body, when) for body, when in bodies if not empty & {_name(s) for s in body}]

    def _numbered(self) -> set[str]:
        """Rules whose meaning depends on the number: llguidance wants exactly these to be marked."""
        numbered = {name for name, bodies in self.rules.items() if any(_asks(*body) for body in bodies)}
        while True:
            more = {
                name
                for name, bodies in self.rules.items()
                if name not in numbered and any(symbol in numbered for symbols, _ in bodies for symbol in symbols)
            }
            if not more:
                return numbered
            numbered |= more

    def _reached(self) -> set[str]:
        reached, waiting = {"start", "nothing"}, ["start"]
        while waiting:
            for symbols, _ in self.rules[waiting.pop()]:
                new = {_name(symbol) for symbol in symbols if _is_rule(symbol)} - reached
                reached |= new
                waiting.extend(new)
        return reached


def _is_rule(symbol: str) -> bool:
    return _CALL.fullmatch(symbol) is not None


def _regex(pattern: str) -> str:
    return "/" + pattern.replace("/", r"\/") + "/"


def _name(symbol: str) -> str:
    return symbol.partition("::")[0]


def _only_changes(body: tuple[str, ...]) -> bool:
    return len(body) == 1 and "(" in body[0] and _is_rule(body[0])


def _asks(symbols: Iterable[str], when: str) -> bool:
    return bool(when) or any("::" in symbol and "(" in symbol for symbol in symbols)


def _symbol(symbol: str, numbered: set[str]) -> str:
    if not _is_rule(symbol):
        return symbol
    name, _, argument = symbol.partition("::")
    return f"{name}::{argument or '_'}" if name in numbered else name


def equals(place: tuple[int, int], value: int) -> str:
    """The bits from place[0] up to place[1] are `value`."""
    return f"eq([{place[0]}:{place[1]}], {value})"


def among(place: tuple[int, int], values: Iterable[int]) -> str:
    """The bits are one of the values, of which there is at least one."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return either(*(_run(place, run[0], run[-1]) for run in runs))


def _run(place: tuple[int, int], low: int, high: int) -> str:
    bits = f"[{place[0]}:{place[1]}]"
    return equals(place, low) if low == high else f"and(ge({bits}, {low}), le({bits}, {high}))"


def both(*conditions: str) -> str:
    """All of the conditions; "" counts as true."""
    return _fold("and", [condition for condition in conditions if condition])


def either(*conditions: str) -> str:
    """Any of the conditions, of which there is at least one."""
    return _fold("or", list(conditions))


def neither(*conditions: str) -> str:
    """None of the conditions; "" when there are none."""
    return f"not({either(*conditions)})" if conditions else ""


def _fold(word: str, conditions: list[str]) -> str:
    """Pair by pair, halves first, so that nesting stays shallow."""
    if len(conditions) < 2:
        return conditions[0] if conditions else ""
    middle = len(conditions) // 2
    return f"{word}({_fold(word, conditions[:middle])}, {_fold(word, conditions[middle:])})"
