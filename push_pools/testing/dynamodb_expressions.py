"""The expressions of DynamoDB that the ledger uses, parsed and evaluated: conditions, key conditions, updates.

It knows top-level attributes, `= < <= > >=`, BETWEEN, AND, OR, NOT, `attribute_exists`, `attribute_not_exists`,
`begins_with`; SET of a value or of `if_not_exists`, ADD of a number, REMOVE. Whatever else DynamoDB knows is refused.
"""

from __future__ import annotations

import functools
import operator
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Value = dict[str, Any]
Item = dict[str, Value]
Node = tuple[Any, ...]

_TOKEN: Final = re.compile(r"\s*(?:(?P<ref>[#:]\w+)|(?P<word>[A-Za-z_]\w*)|(?P<sign><=|>=|[=<>(),]))")
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FUNCTIONS: Final = {"attribute_exists": 1, "attribute_not_exists": 1, "begins_with": 2}


class InvalidExpression(ValueError):
    """An expression is wrong, or is one that is not known here."""


@dataclass(frozen=True)
class References:
    """The names and values that come with a request's expressions."""

    names: Mapping[str, str]
    values: Mapping[str, Value]

    def name(self, reference: str) -> str:
        """Return the attribute that `#x` means."""
        if reference not in self.names:
            raise InvalidExpression(f"An expression attribute name is not defined: {reference}")
        return self.names[reference]

    def value(self, reference: str) -> Value:
        """Return what `:x` means."""
        if reference not in self.values:
            raise InvalidExpression(f"An expression attribute value is not defined: {reference}")
        return self.values[reference]


def check_used(references: References, *expressions: str) -> None:
    """Refuse names and values that no expression uses, as DynamoDB does.

    Raises:
        InvalidExpression: One is not used.
    """
    used = _used(expressions)
    for kind, given in (("Names", references.names), ("Values", references.values)):
        if unused := sorted(set(given) - used):
            raise InvalidExpression(f"Value provided in ExpressionAttribute{kind} unused in expressions: {unused}")


# -- reading -------------------------------------------------------------------


@functools.lru_cache(maxsize=1000)
def _used(expressions: tuple[str, ...]) -> frozenset[str]:
    return frozenset(token for expression in expressions for token in _tokens(expression))


def _tokens(expression: str) -> list[str]:
    found, at, text = [], 0, expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidExpression(f"Syntax error at {text[at:]!r}")
        found.append(match.group(match.lastgroup or 0))
        at = match.end()
    return found


class _Reader:
    def __init__(self, expression: str) -> None:
        self.tokens = _tokens(expression)
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str | None = None) -> str:
        token = self.peek()
        if not token or (wanted is not None and token.upper() != wanted):
            raise InvalidExpression(f"Syntax error at {token!r}")
        self.at += 1
        return token

    def comes(self, wanted: str) -> bool:
        if self.peek().upper() != wanted:
            return False
        self.at += 1
        return True

    # Conditions.

    def either(self) -> Node:
        node = self.both()
        while self.comes("OR"):
            node = ("or", node, self.both())
        return node

    def both(self) -> Node:
        node = self.negated()
        while self.comes("AND"):
            node = ("and", node, self.negated())
        return node

    def negated(self) -> Node:
        return ("not", self.negated()) if self.comes("NOT") else self.single()

    def single(self) -> Node:
        if self.comes("("):
            node = self.either()
            self.take(")")
            return node
        if self.peek() in _FUNCTIONS:
            return self.function()
        left = self.operand()
        if self.comes("BETWEEN"):
            low = self.operand()
            self.take("AND")
            return ("between", left, low, self.operand())
        sign = self.take()
        if sign not in _COMPARE:
            raise InvalidExpression(f"Syntax error at {sign!r}")
        return ("compare", sign, left, self.operand())

    def function(self) -> Node:
        name = self.take()
        self.take("(")
        arguments = [self.operand()]
        while self.comes(","):
            arguments.append(self.operand())
        self.take(")")
        if len(arguments) != _FUNCTIONS[name]:
            raise InvalidExpression(f"Incorrect number of operands for function {name}")
        return (name, *arguments)

    def operand(self) -> str:
        token = self.take()
        if token[0] not in "#:":
            raise InvalidExpression(f"Syntax error at {token!r}: only #name and :value are known here")
        return token

    # Updates.

    def clauses(self) -> Iterator[Node]:
        while self.peek():
            kind = self.take().upper()
            if kind not in ("SET", "ADD", "REMOVE"):
                raise InvalidExpression(f"Syntax error at {kind!r}")
            yield self.action(kind)
            while self.comes(","):
                yield self.action(kind)

    def action(self, kind: str) -> Node:
        name = self.operand()
        if kind == "REMOVE":
            return ("remove", name)
        if kind == "ADD":
            return ("add", name, self.operand())
        self.take("=")
        if not self.comes("IF_NOT_EXISTS"):
            return ("set", name, None, self.operand())
        self.take("(")
        unless = self.operand()
        self.take(",")
        value = self.operand()
        self.take(")")
        return ("set", name, unless, value)


@functools.lru_cache(maxsize=1000)
def condition(expression: str) -> Node:
    """Return a condition, parsed.

    Raises:
        InvalidExpression: It is wrong.
    """
    reader = _Reader(expression)
    node = reader.either()
    if reader.peek():
        raise InvalidExpression(f"Syntax error at {reader.peek()!r}")
    return node


@functools.lru_cache(maxsize=1000)
def _update(expression: str) -> tuple[Node, ...]:
    return tuple(_Reader(expression).clauses())


# -- evaluating ----------------------------------------------------------------


def holds(node: Node, item: Item, references: References) -> bool:
    """Return whether a condition holds for an item. A comparison with what is not there never does."""
    match node:
        case ("or", left, right):
            return holds(left, item, references) or holds(right, item, references)
        case ("and", left, right):
            return holds(left, item, references) and holds(right, item, references)
        case ("not", inner):
            return not holds(inner, item, references)
        case ("attribute_exists", name):
            return references.name(name) in item
        case ("attribute_not_exists", name):
            return references.name(name) not in item
        case ("compare", sign, left, right):
            return _compare(sign, _value(left, item, references), _value(right, item, references))
        case ("between", middle, low, high):
            value = _value(middle, item, references)
            return _compare(">=", value, _value(low, item, references)) and _compare(
                "<=", value, _value(high, item, references)
            )
        case ("begins_with", name, prefix):
            return _begins(_value(name, item, references), _value(prefix, item, references))
    raise InvalidExpression(f"unknown condition {node!r}")


def _value(operand: str, item: Item, references: References) -> Value | None:
    return references.value(operand) if operand[0] == ":" else item.get(references.name(operand))


def _compare(sign: str, left: Value | None, right: Value | None) -> bool:
    if left is None or right is None or set(left) != set(right):
        return False
    return _COMPARE[sign](order(left), order(right))


def _begins(value: Value | None, prefix: Value | None) -> bool:
    if value is None or prefix is None or set(value) != set(prefix) or not set(prefix) <= {"S", "B"}:
        return False
    begins: bool = order(value).startswith(order(prefix))
    return begins


def order(value: Value) -> Any:
    """Return what a value is sorted and compared by: numbers as numbers, texts by their UTF-8 bytes."""
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return Decimal(content)
        case "S":
            return content.encode()
        case _:
            return content


def updated(expression: str, item: Item, references: References) -> Item:
    """Return an item after an update; every value is that of before.

    Raises:
        InvalidExpression: The update is wrong, or adds to what is not a number.
    """
    after = dict(item)
    for node in _update(expression):
        match node:
            case ("set", name, unless, value):
                kept = item.get(references.name(unless)) if unless else None
                after[references.name(name)] = kept or references.value(value)
            case ("remove", name):
                after.pop(references.name(name), None)
            case ("add", name, value):
                after[references.name(name)] = _sum(item.get(references.name(name)), references.value(value))
    return after


def _sum(before: Value | None, change: Value) -> Value:
    if set(change) != {"N"} or (before is not None and set(before) != {"N"}):
        raise InvalidExpression("An operand in the update expression has an incorrect data type")
    total = Decimal(before["N"] if before else 0) + Decimal(change["N"])
    return {"N": format(total.normalize(), "f")}


def key_values(node: Node, references: References) -> tuple[dict[str, Value], Node | None, str]:
    """Return the equalities of a key condition, its range condition, and the name that the latter is about."""
    equal: dict[str, Value] = {}
    ranged: Node | None = None
    about = ""
    for part in _parts(node):
        match part:
            case ("compare", "=", name, value):
                equal[references.name(name)] = references.value(value)
            case ("compare", _, name, _) | ("between", name, _, _) | ("begins_with", name, _) if ranged is None:
                ranged, about = part, references.name(name)
            case _:
                raise InvalidExpression("Invalid KeyConditionExpression")
    return equal, ranged, about


def _parts(node: Node) -> Iterator[Node]:
    if node[0] == "and":
        yield from _parts(node[1])
        yield from _parts(node[2])
    else:
        yield node
