"""A Jinja environment in which no template runs for long or makes much, whatever it says.

Jinja's sandbox keeps templates from reaching out; it lets them loop and multiply. Here what they do is counted.
"""

import functools
import re
import threading
from collections.abc import Callable
from itertools import chain
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LONGEST = 2**18
"""Characters of a template."""
BUDGET, SHARE = 2**20, 32
"""Characters that one rendering may make: so many, and so many times those that it is given."""
ITEM, TURN = 64, 64
"""What an item of a list, and what a turn of a loop or a call, take of that."""
MOST_AT_ONCE = 2**27
"""Characters that an operation may make, by the sizes of what goes in."""
MOST_BITS = 1024
"""Of a whole number."""
WIDTH = re.compile(r"\{[^}]*:[^}]*[0-9]{4}|\{[^{}]+\{|%[^a-zA-Z%]*([0-9]{4}|\*)")
"""Of a field in a format: more than 999 characters, or as an argument has it."""
WIDEST = 1000
LOOKING = frozenset(
    ("attr", "count", "d", "default", "first", "items", "last", "length", "list", "map", "reject", "rejectattr")
) | {"select", "selectattr"}
"""Filters that make no text of what they get."""


class TooMuch(Exception):
    """A template does or makes more than it may."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """An environment that counts what one rendering at a time does."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, filters: dict[str, Callable[..., Any]], **how: Any) -> None:
        super().__init__(finalize=self.piece, **how)
        self.filters = {name: self._counted(name, one) for name, one in (self.filters | filters).items()}
        self.globals.pop("lipsum", None)
        self.left = BUDGET
        self.alone = threading.Lock()

    def compiled(self, text: str) -> Callable[[dict[str, Any]], str]:
        """What makes a text of a template's variables. Both raise TooMuch, and whatever Jinja makes of the template."""
        if len(text) > LONGEST:
            raise TooMuch(f"it has {len(text):,} characters, more than {LONGEST:,}")
        template = self.from_string(_Counting(self).visit(self.parse(text)))

        def render(given: dict[str, Any]) -> str:
            with self.alone:
                self.left = BUDGET + SHARE * _size(given)
                return template.render(given)

        return render

    def turn(self, made: int = 0) -> bool:
        """Counts a turn of a loop or a call, and the characters that it makes."""
        self._spend(TURN + made)
        return True

    def look(self, value: Any) -> Any:
        """Counts a value that is compared."""
        self._spend(_length(value) // TURN)
        return value

    def piece(self, value: Any) -> Any:
        """Counts a value that becomes part of a text or of another value."""
        self._spend(_size(value))
        return value

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(__obj, "__wrapped__", __obj)
        owner = getattr(method, "__self__", None)
        if owner is __self:  # what `_Counting` put in
            return __obj(*args)
        others = [*args, *(one for name, one in kwargs.items() if name[:1] != "_")]  # Jinja adds its own
        if isinstance(owner, str | bytes) and getattr(method, "__name__", "") in ("format", "format_map"):
            _check_format(owner, others)
        elif isinstance(owner, str | bytes | int):
            _check(_size(owner), others)
        made = super().call(__context, __obj, *args, **kwargs)
        __self.turn(_size(made) if __obj is dict else _length(made))
        return made

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int | float) and isinstance(right, int | float):
            _check_number(operator, left, right)
        elif operator == "*":
            _check(_factor(left), [right])
        elif operator == "%" and isinstance(left, str | bytes):
            _check_format(left, [right])
        made = super().call_binop(context, operator, left, right)
        self.turn(_length(made))
        return made

    def _spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise TooMuch("it does not end, or makes too much text")

    def _counted(self, name: str, one: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(one)  # keeps the mark of what Jinja hands to a filter first
        def counted(*args: Any, **kwargs: Any) -> Any:
            values = args[1:] if hasattr(one, "jinja_pass_arg") else args
            others = [*values[1:], *kwargs.values()]
            if values and name not in LOOKING:
                _check(_size(values[0]), others if name != "format" else [])
                if name == "format":
                    _check_format(str(values[0]), others)
                self.turn(_length(values[0]))
            made = one(*args, **kwargs)
            self.turn(_length(made))
            return made

        return counted


class _Counting(NodeTransformer):
    """Has a parsed template count the turns of its loops, and what it joins and lists."""

    def __init__(self, environment: BoundedEnvironment) -> None:
        self.environment = environment

    def visit_For(self, node: nodes.For) -> nodes.Node:
        literal = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        turn = self._call("turn", nodes.Const(literal, lineno=node.lineno), node)
        node.body.insert(0, nodes.ExprStmt(turn, lineno=node.lineno, environment=self.environment))
        if node.test is not None:
            once = self._call("turn", nodes.Const(0, lineno=node.lineno), node)
            node.test = nodes.And(once, node.test, lineno=node.lineno, environment=self.environment)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [self._call("piece", one, node) for one in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._call("look", node.expr, node)
        for operand in node.ops:
            operand.expr = self._call("look", operand.expr, node)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._call("piece", self.generic_visit(node), node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._call("piece", self.generic_visit(node), node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        made = self.generic_visit(node)
        return made if node.ctx != "load" else self._call("piece", made, node)

    def _call(self, name: str, value: nodes.Node, at: nodes.Node) -> nodes.Call:
        method = nodes.EnvironmentAttribute(name, lineno=at.lineno, environment=self.environment)
        return nodes.Call(method, [value], [], None, None, lineno=at.lineno, environment=self.environment)


def _check(size: int, others: list[Any], extra: int = 1) -> None:
    """Raises TooMuch if a value of this size multiplied by, padded to, joined by or filled with others may become too large."""
    if (1 + size) * (extra + sum(_factor(one) for one in others)) > MOST_AT_ONCE:
        raise TooMuch("it makes too much text at once")


def _check_format(form: str | bytes, others: list[Any]) -> None:
    if WIDTH.search(form if isinstance(form, str) else form.decode("latin-1")):
        raise TooMuch("it formats to a width that is too large, or not known")
    _check(len(form), [_size(one) for one in others], extra=WIDEST)


def _factor(value: Any) -> int:
    """How many times as large a text may become by a value."""
    return abs(value) if isinstance(value, int) else _size(value)


def _check_number(operator: str, left: int | float, right: int | float) -> None:
    if isinstance(left, int) and isinstance(right, int):
        one, other = left.bit_length(), right.bit_length()
        bits = {"*": one + other, "**": one * max(right, 0)}.get(operator, 0)
        if bits > MOST_BITS:
            raise TooMuch("it makes a number that is too large")


def _length(value: Any) -> int:
    """Characters of a text, items of a list."""
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | set | range) else 0


def _size(value: Any) -> int:
    """Characters and items in a value, and in the values that it holds; counted no further than the largest that may be."""
    left, size = [value], 0
    while left and size <= MOST_AT_ONCE:
        one = left.pop()
        size += ITEM
        if isinstance(one, str | bytes):
            size += len(one)
        elif isinstance(one, dict):
            left += chain.from_iterable(one.items())
        elif isinstance(one, list | tuple | set):
            left += one
    return size
