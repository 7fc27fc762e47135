"""Arithmetic on task vectors as text: "sentiment - 0.5 * topics" into a weight for each model."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from alliage.errors import Problem, UsageError, nearest

_WHERE = "expression"
_ZERO = Fraction(0)
_SYMBOLS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.Pow: "**", ast.FloorDiv: "//", ast.Mod: "%", ast.MatMult: "@",
    ast.BitXor: "^", ast.BitOr: "|", ast.BitAnd: "&", ast.LShift: "<<", ast.RShift: ">>",
    ast.Invert: "~", ast.Not: "not",
}  # fmt: skip
_KNOWN = "Known: + - * / and parentheses."

# A number, or a weight for each name: zero where a name cancels out.
_Value = Fraction | dict[str, Fraction]


@dataclass(frozen=True, slots=True)
class Term:
    """One model of an expression.

    Attributes:
        name: as the expression calls it.
        ref: the model.
        weight: what its task vector is multiplied by, zero where it cancels out.
    """

    name: str
    ref: str
    weight: float


def parse_expression(text: str, definitions: Iterable[str] = ()) -> list[Term]:
    """Read a linear combination of task vectors.

    Numbers are exact: 0.1 is a tenth, and `a - 0.9 * a - 0.1 * a` is nothing. Each is rounded
    once, to float64, when all is added up.

    Args:
        text: names, numbers, + − * / and parentheses. A name is defined, or a path itself; a
            reference with other signs stands in quotes: "'org/model' - topics".
        definitions: NAME=REF, a model for a name.

    Returns:
        a term for each model in the order of the expression; names of one model are one term.

    Raises:
        UsageError: no such expression, unknown or unused names, or nothing is left; all of them.
    """
    reader = _Reader(text)
    value = reader.read()
    refs = _resolve(reader, _define(definitions, reader.problems))
    if isinstance(value, Fraction):
        reader.problems.append(Problem(_WHERE, "is a number; expected at least one model."))
    if reader.problems:
        raise UsageError(reader.problems)
    assert isinstance(value, dict)
    weights: dict[str, Fraction] = {}  # of each model under its first name
    first: dict[str, str] = {}
    for name, weight in value.items():
        leader = first.setdefault(_location(refs[name]), name)
        weights[leader] = weights.get(leader, _ZERO) + weight
    return _rounded(weights, refs)


def _location(ref: str) -> str:
    path = Path(ref).expanduser()
    return str(path.resolve()) if path.exists() else ref


def _rounded(weights: dict[str, Fraction], refs: dict[str, str]) -> list[Term]:
    terms, problems = [], []
    for name, weight in weights.items():
        try:
            terms.append(Term(name, refs[name], float(weight)))
        except OverflowError:
            problems.append(Problem(_WHERE, f"the weight of {name} is too large for a float64."))
    if not problems and not any(term.weight for term in terms):
        what = "nothing is left: every weight is zero."
        problems.append(Problem(_WHERE, what, "The result would be the base itself."))
    if problems:
        raise UsageError(problems)
    return terms


def _define(definitions: Iterable[str], problems: list[Problem]) -> dict[str, str]:
    known: dict[str, str] = {}
    for definition in definitions:
        name, equals, ref = (part.strip() for part in definition.partition("="))
        if not (equals and ref and name.isidentifier()):
            fix = "Write the expression itself in quotes." if not equals else ""
            what = "expected NAME=REF, the name of letters and digits."
            problems.append(Problem(definition, what, fix))
        elif name in known:
            problems.append(Problem(definition, f"{name} is {known[name]} already."))
        else:
            known[name] = ref
    return known


def _resolve(reader: _Reader, known: dict[str, str]) -> dict[str, str]:
    """What each name stands for; unknown names and unused definitions are problems."""
    refs: dict[str, str] = {}
    for name, place in reader.names.items():
        if name in reader.quoted or Path(name).exists():
            refs[name] = name
        if name not in reader.quoted and name in known:
            refs[name] = known[name]
        if name not in refs:
            folders = [path.name for path in Path().iterdir() if path.is_dir()]
            fix = f"Define it as {name}=REF, or quote a path or hub id."
            near = nearest(name, [*known, *folders]) if known or len(folders) < 20 else ""
            reader.problems.append(Problem(place, f"no model {name!r}.", f"{near} {fix}".strip()))
    for name, ref in known.items():
        if name not in reader.names:
            what = "is defined but not in the expression."
            reader.problems.append(Problem(f"{name}={ref}", what, nearest(name, reader.names)))
    return refs


class _Reader:
    """One pass over an expression's tree.

    Attributes:
        names: the models in it -> where each stands first.
        quoted: those in quotes.
        problems: whatever is wrong with it.
    """

    def __init__(self, text: str) -> None:
        self.line = text.replace("\n", " ").replace("\r", " ")
        self.source = self.line.strip()
        self.names: dict[str, str] = {}
        self.quoted: set[str] = set()
        self.problems: list[Problem] = []

    def read(self) -> _Value | None:
        """Its value; nothing where a problem leaves none.

        Raises:
            UsageError: it cannot be read at all.
        """
        where, fix = _WHERE, _KNOWN
        try:
            return self._value(ast.parse(self.source, mode="eval").body)
        except (RecursionError, MemoryError):
            reason, fix = "nested too deeply", "Write a plain sum."
        except SyntaxError as error:
            column = error.offset or len(self.source) + 1  # 0: where it breaks off
            where = f"{_WHERE}, column {column + self._indent}"
            reason = error.msg if self.source else "empty"
        except ValueError as error:  # null bytes
            reason = str(error)
        raise UsageError(Problem(where, f"{reason}.", fix))

    @property
    def _indent(self) -> int:
        return len(self.line) - len(self.line.lstrip())

    def _at(self, node: ast.expr) -> str:
        before = self.source.encode()[: node.col_offset].decode()  # the tree counts bytes
        return f"{_WHERE}, column {len(before) + self._indent + 1}"

    def _refuse(self, node: ast.expr, what: str, fix: str = "") -> None:
        self.problems.append(Problem(self._at(node), what, fix))

    def _value(self, node: ast.expr) -> _Value | None:
        match node:
            case ast.Constant(value=str(name)) | ast.Name(id=name):
                if isinstance(node, ast.Constant):
                    self.quoted.add(name)
                self.names.setdefault(name, self._at(node))
                return {name: Fraction(1)}
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                try:
                    return Fraction(repr(number))  # the digits as written, not the nearest float
                except ValueError:
                    self._refuse(node, "the number is too large for a float64.")
            case ast.UnaryOp(op=ast.UAdd()):
                return self._value(node.operand)
            case ast.UnaryOp(op=ast.USub()):
                value = self._value(node.operand)
                return None if value is None else _times(value, Fraction(-1))
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
                return self._combine(node)
            case ast.BinOp() | ast.UnaryOp():
                symbol = _SYMBOLS[type(node.op)]
                self._refuse(node, f"{symbol!r} does not combine task vectors.", _KNOWN)
            case ast.Attribute():
                written = ast.get_source_segment(self.source, node)
                self._refuse(node, f"{written} is no name.", f"Quote it: '{written}'.")
            case _:
                written = ast.get_source_segment(self.source, node)
                self._refuse(node, f"{written} is neither a model nor a number.", _KNOWN)
        return None

    def _combine(self, node: ast.BinOp) -> _Value | None:
        left, right = self._value(node.left), self._value(node.right)
        if left is None or right is None:
            return None
        symbol = _SYMBOLS[type(node.op)]
        if isinstance(node.op, ast.Mult):
            if isinstance(right, Fraction):
                return _times(left, right)
            if isinstance(left, Fraction):
                return _times(right, left)
            fix = "One of the two must be a number."
            self._refuse(node, "'*' of two models: their task vectors have no product.", fix)
            return None
        if isinstance(node.op, ast.Div):
            if isinstance(right, Fraction) and right:
                return _times(left, 1 / right)
            what = "division by zero." if isinstance(right, Fraction) else "'/' by a model."
            self._refuse(node, what, "Divide by a number other than zero.")
            return None
        sign = 1 if isinstance(node.op, ast.Add) else -1
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return left + sign * right
        if isinstance(left, Fraction) or isinstance(right, Fraction):
            what = f"{symbol!r} of a number and a model."
            self._refuse(node, what, "A number can only multiply or divide one.")
            return None
        return left | {n: left.get(n, _ZERO) + sign * weight for n, weight in right.items()}


def _times(value: _Value, factor: Fraction) -> _Value:
    if isinstance(value, Fraction):
        return value * factor
    return {name: weight * factor for name, weight in value.items()}
