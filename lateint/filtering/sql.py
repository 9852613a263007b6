"""Conditions as SQL: ``lang = 'en' AND year >= :y``; they are parsed into a tree, and no SQL is ever run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from lateint.fields.values import plain
from lateint.filtering import mappings, tree
from lateint.filtering.tree import (
    DEEPEST,
    And,
    Compare,
    Contains,
    Exists,
    FilterError,
    In,
    Not,
    Or,
    Scalar,
    Tree,
    check,
    scalar,
)

LONGEST = 1 << 16  # characters of a condition: what is long comes as a parameter


def parse(condition: str, params: Mapping[str, Any] | None = None) -> Tree:
    """The tree of a condition, in which ``:name`` stands for the value ``params`` has of that name.

    Raises:
        FilterError: it is no condition of this small part of SQL, or too large; the message says where, if it can.
        ImportError: sqlglot is not installed.
    """
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(f"params must be a mapping of names to values, got {type(params).__name__}")
    if len(condition) > LONGEST:
        raise FilterError(
            f"filter must have at most {LONGEST:,} characters, got {len(condition):,}; what is long comes by params"
        )
    expression = _parsed(condition)
    reading = _Reading(condition, {} if params is None else params)
    found = check(reading.condition(expression, 1))
    if unused := sorted(set(reading.params) - reading.used):
        raise FilterError(f"params has {str(unused[0])[:64]!r}, which the condition does not name")
    return found


@lru_cache(64)  # for the same one comes with every search
def _parsed(condition: str) -> Any:
    """What sqlglot makes of it; nothing changes it afterwards."""
    language, errors = _language()
    try:
        dialect = language()
        tokens = dialect.tokenize(condition)
        _check_nesting(tokens)
        found = dialect.parser().parse(tokens, condition)
    except errors.ParseError as error:
        first = error.errors[0] if error.errors else {}
        place = f" at line {first['line']}, column {first['col']}" if first.get("line") else ""
        near = f", near {str(first['highlight'])[:64]!r}" if first.get("highlight") else ""
        raise FilterError(f"filter cannot be read{place}{near}: {_reason(first)}") from None
    except errors.TokenError:
        raise FilterError("filter cannot be read: a string or a name in quotes does not end") from None
    except RecursionError:
        raise FilterError(f"filter must be at most {DEEPEST} levels deep") from None
    if len(found) != 1 or found[0] is None:
        raise FilterError(
            "filter must be one condition, got none" if not condition.strip() else "filter must be one condition"
        )
    return found[0]


def _reason(error: Mapping[str, Any]) -> str:
    words = str(error.get("description", ""))
    return "something is missing" if words.startswith("Required keyword") else "this is not expected here"


@cache
def _language() -> tuple[Any, Any]:
    """A dialect of sqlglot that knows few words: everything else is a name, or an error."""
    try:
        from sqlglot import errors, parser, tokens
        from sqlglot.dialects.dialect import Dialect
    except ImportError as error:
        raise ImportError("a filter that is a string needs sqlglot: pip install lateint[sql]") from error
    kind = tokens.TokenType

    class LateintCondition(Dialect):  # type: ignore[misc]
        class Tokenizer(tokens.Tokenizer):  # type: ignore[misc]
            KEYWORDS = {  # noqa: RUF012
                **{word: getattr(kind, word) for word in _WORDS},
                **{"<>": kind.NEQ, "!=": kind.NEQ, "<=": kind.LTE, ">=": kind.GTE},
                **{"CONTAINS": kind.AT_GT, "CONTAINS ANY": kind.OVERLAPS, "CONTAINS ALL": kind.LT_AT},
            }
            COMMENTS: list[str] = []  # noqa: RUF012

        class Parser(parser.Parser):  # type: ignore[misc]
            RANGE_PARSERS = {  # noqa: RUF012
                token: parser.Parser.RANGE_PARSERS[token]
                for token in (kind.AT_GT, kind.OVERLAPS, kind.LT_AT, kind.BETWEEN, kind.IN, kind.IS, kind.LIKE)
            }

    return LateintCondition, errors


_WORDS = ("AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "ESCAPE", "IS", "NULL", "TRUE", "FALSE", "DATE", "TIMESTAMP")


def _check_nesting(tokens: list[Any]) -> None:
    """Before anything that calls itself reads them."""
    depth = run = 0
    for token in tokens:
        name = token.token_type.name
        depth += (name in _OPENING) - (name in _CLOSING)
        run = run + 1 if name in _BEFORE else 0
        if max(depth, run) > DEEPEST:
            raise FilterError(f"filter must be at most {DEEPEST} levels deep")


_OPENING, _CLOSING = ("L_PAREN", "L_BRACKET", "L_BRACE"), ("R_PAREN", "R_BRACKET", "R_BRACE")
_BEFORE = ("NOT", "DASH", "PLUS", "TILDE", *_OPENING)


class _Reading:
    """From an expression of sqlglot to a tree: what is not listed is refused."""

    def __init__(self, text: str, params: Mapping[str, Any]) -> None:
        self.text, self.params, self.used = text, params, set[str]()

    def condition(self, node: Any, depth: int) -> Tree:
        if depth > DEEPEST:
            raise FilterError(f"filter must be at most {DEEPEST} levels deep")
        read = _READERS.get(type(node).__name__)
        if read is None:
            raise self.refusal(node)
        return read(self, node, depth)

    def refusal(self, node: Any) -> FilterError:
        """For what is no part of the language."""
        what = node.sql()[:64] if hasattr(node, "sql") else str(node)[:64]
        starts = [part.meta["start"] for part in node.walk() if "start" in part.meta] if hasattr(node, "walk") else []
        place = f" at character {min(starts) + 1}" if starts else ""
        return FilterError(
            f"filter has something that is no condition on a field{place}: {what}; docs/filters.md says what is"
        )

    def paren(self, node: Any, depth: int) -> Tree:
        return self.condition(self.only(node, "this"), depth + 1)

    def negation(self, node: Any, depth: int) -> Tree:
        found = self.condition(self.only(node, "this"), depth + 1)
        return found.part if isinstance(found, Not) else Not(found)

    def chain(self, node: Any, depth: int) -> Tree:
        """``a AND b AND c``, which is ``(a AND b) AND c`` and may be long."""
        kind, parts = type(node), []
        while type(node) is kind:
            left, right = self.only(node, "this", "expression")
            parts.append(self.condition(right, depth + 1))
            node = left
        parts.append(self.condition(node, depth + 1))
        return (And if kind.__name__ == "And" else Or)(tuple(reversed(parts)))

    def comparison(self, node: Any, depth: int) -> Tree:
        left, right = self.only(node, "this", "expression")
        operator = _OPERATORS[type(node).__name__]
        if type(left).__name__ not in _NAMES and type(right).__name__ not in _NAMES:
            raise self.refusal(left if type(left).__name__ != "Literal" else node)
        if type(left).__name__ not in _NAMES:
            left, right, operator = right, left, _TURNED[operator]
        field = self.field(left)
        compare = Compare(field, operator if operator != "!=" else "=", self.value(right, field))
        return Not(compare) if operator == "!=" else compare

    def between(self, node: Any, depth: int) -> Tree:
        this, low, high = self.only(node, "this", "low", "high")
        field = self.field(this)
        return And((Compare(field, ">=", self.value(low, field)), Compare(field, "<=", self.value(high, field))))

    def membership(self, node: Any, depth: int) -> Tree:
        field = self.field(node.this)
        if node.args.get("field") is not None:
            return In(field, self.values([self.only(node, "this", "field")[1]], field))
        return In(field, self.values(self.only(node, "this", "expressions", empty=("expressions",))[1], field))

    def like(self, node: Any, depth: int, escape: str | None = "\\") -> Tree:
        this, pattern = self.only(node, "this", "expression", besides=("negate",))
        field = self.field(this)
        found = tree.like(field, self.value(pattern, field).value, escape)
        return Not(found) if node.args.get("negate") else found

    def escape(self, node: Any, depth: int) -> Tree:
        this, escape = self.only(node, "this", "expression")
        character = self.value(escape, "ESCAPE").value
        if type(this).__name__ != "Like" or not isinstance(character, str) or len(character) != 1:
            raise FilterError("ESCAPE must come after a pattern and be one character")
        return self.like(this, depth, character)

    def null(self, node: Any, depth: int) -> Tree:
        this, value = self.only(node, "this", "expression", besides=("negate",))
        field = self.field(this)
        if type(value).__name__ != "Null":
            raise FilterError(f"IS of {field[:64]!r} must be followed by NULL or NOT NULL")
        return Exists(field) if node.args.get("negate") else Not(Exists(field))

    def contains(self, node: Any, depth: int) -> Tree:
        this, values = self.only(node, "this", "expression")
        field, kind = self.field(this), type(node).__name__
        if kind == "ArrayContainsAll":
            return Contains(field, (self.value(values, field),), every=True)
        inside = {"Tuple": "expressions", "Paren": "this"}.get(type(values).__name__)
        nodes = values if inside is None else values.args[inside]
        found = self.values(nodes if isinstance(nodes, list) else [nodes], field)
        return Contains(field, found, every=kind == "ArrayContainedBy")

    def only(self, node: Any, *names: str, besides: tuple[str, ...] = (), empty: tuple[str, ...] = ()) -> Any:
        """These arguments of a node, which must have no others."""
        for name, value in node.args.items():
            if name not in names and name not in besides and value not in (None, False, []):
                raise self.refusal(node)
        found = [node.args.get(name) for name in names]
        if any(one is None and name not in empty for name, one in zip(names, found, strict=True)):
            raise self.refusal(node)
        return found[0] if len(found) == 1 else found

    def field(self, node: Any) -> str:
        """A name, perhaps with dots."""
        kind = type(node).__name__
        if kind == "Dot":
            left, right = self.only(node, "this", "expression")
            if type(right).__name__ == "Identifier":
                return f"{self.field(left)}.{right.name}"
        if kind == "Column" and all(type(part).__name__ == "Identifier" for part in node.parts):
            return ".".join(part.name for part in node.parts)
        raise self.refusal(node)

    def value(self, node: Any, field: str) -> Scalar:
        """A constant, or what a parameter stands for."""
        return scalar(self.constant(node), repr(field[:64]))

    def values(self, nodes: Any, field: str) -> tuple[Scalar, ...]:
        """Constants; a parameter may stand for a list of them."""
        found: list[Any] = []
        for node in nodes or ():
            value = plain(self.constant(node))
            found += value if isinstance(value, (list, tuple, set, frozenset)) else [value]
        return tuple(scalar(one, repr(field[:64])) for one in found)

    def constant(self, node: Any) -> Any:
        kind = type(node).__name__
        if kind == "Literal":
            return node.this if node.is_string else self.number(node, "")
        if kind == "Boolean":
            return bool(node.this)
        if kind == "Null":
            raise FilterError("filter cannot compare with NULL, which nothing is equal to; write IS NULL")
        if kind == "Neg" and type(node.this).__name__ == "Literal" and not node.this.is_string:
            return self.number(node.this, "-")
        if kind == "Cast" and type(node.this).__name__ == "Literal" and node.this.is_string:
            return mappings.date_of(node.this.this.replace(" ", "T", 1), node.this.this[:64])
        if kind == "Placeholder":
            if not isinstance(node.this, str) or not node.this:
                raise FilterError("filter must have parameters with names, such as :year, got one without")
            if node.this not in self.params:
                raise FilterError(f"params must have a value for :{node.this[:64]}, which the condition names")
            self.used.add(node.this)
            return self.params[node.this]
        raise self.refusal(node)

    def number(self, node: Any, sign: str) -> int | float:
        text = sign + node.this
        try:
            return int(text) if node.this.isdigit() else float(text)
        except ValueError:
            raise FilterError(f"filter has a number that is none: {text[:64]}") from None


_NAMES = ("Column", "Dot")
_OPERATORS = {"EQ": "=", "NEQ": "!=", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_TURNED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

_READERS: dict[str, Callable[[_Reading, Any, int], Tree]] = {
    **dict.fromkeys(_OPERATORS, _Reading.comparison),
    "Paren": _Reading.paren,
    "Not": _Reading.negation,
    "And": _Reading.chain,
    "Or": _Reading.chain,
    "Between": _Reading.between,
    "In": _Reading.membership,
    "Like": _Reading.like,
    "Escape": _Reading.escape,
    "Is": _Reading.null,
    "ArrayContainsAll": _Reading.contains,
    "Overlaps": _Reading.contains,
    "ArrayContainedBy": _Reading.contains,
}
