"""`calculate_output`: the formula of a multi grader, parsed and never evaluated as Python.

Names of sub-graders, numbers, arithmetic, comparisons (1 or 0), and the functions min, max, abs,
floor, ceil, exp, log, sqrt, round. Everything is a float; there are no strings, attributes,
subscripts, lambdas, comprehensions or keyword arguments to get out by.
"""

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from keyword import iskeyword

MAX_LENGTH = 500
"""Characters. Bounds the depth of the tree, and with it the recursion."""

_BINARY: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,  # not `**`, which turns a negative base complex
}
_UNARY: Mapping[type[ast.unaryop], Callable[[float], float]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _round(value: float, digits: float = 0) -> float:
    return round(value, int(digits))


_FUNCTIONS: Mapping[str, tuple[Callable[..., float], int, int]] = {
    "min": (min, 2, 99),
    "max": (max, 2, 99),
    "abs": (abs, 1, 1),
    "floor": (math.floor, 1, 1),
    "ceil": (math.ceil, 1, 1),
    "exp": (math.exp, 1, 1),
    "log": (math.log, 1, 2),
    "sqrt": (math.sqrt, 1, 1),
    "round": (_round, 1, 2),
}
"""Function, fewest and most arguments."""


@dataclass(frozen=True)
class Expression:
    """A parsed formula."""

    text: str
    names: frozenset[str]
    """The sub-graders it uses."""
    _tree: ast.expr

    def evaluate(self, values: Mapping[str, float]) -> float:
        """The formula's value.

        Raises:
            ArithmeticError: division by zero, a domain error, or a result that is not finite.
        """
        try:
            result = _evaluate(self._tree, values)
        except (ArithmeticError, ValueError) as error:
            raise ArithmeticError(f"{self.text}: {error}") from error
        if not math.isfinite(result):
            raise ArithmeticError(f"{self.text}: the result is {result}")
        return result


def parse_expression(text: str, names: Collection[str]) -> Expression:
    """Reads a formula over these names.

    Raises:
        ValueError: with every part of it that is not allowed.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        words = ", ".join(sorted(filter(iskeyword, names)))
        hint = f"; a sub-grader cannot be named {words}, which formulas mean otherwise"
        raise ValueError(f"is not a formula: {error}{hint if words else ''}") from error
    problems = list(dict.fromkeys(_problems(tree, names)))
    if problems:
        raise ValueError("; ".join(problems))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return Expression(text, frozenset(used & set(names)), tree)


def _problems(node: ast.expr, names: Collection[str]) -> list[str]:
    """Everything below this node that a formula may not hold."""
    match node:
        case ast.Constant(value=bool()):
            return ["True and False are not numbers; write 1 or 0"]
        case ast.Constant(value=int() | float() as number):
            return [] if _is_finite(number) else ["a number is too large"]
        case ast.Constant():
            return [f"{ast.unparse(node):.60} is not a number"]
        case ast.Name(id=name):
            return [] if name in names else [_unknown(name, "sub-grader", names)]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _problems(operand, names)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return [*_problems(left, names), *_problems(right, names)]
        case ast.Compare(left=left, ops=ops, comparators=others) if all(
            type(op) in _COMPARE for op in ops
        ):
            return [problem for part in (left, *others) for problem in _problems(part, names)]
        case ast.Call(func=ast.Name(id=function), args=args, keywords=[]):
            return [
                *_call_problems(function, args),
                *(p for a in args for p in _problems(a, names)),
            ]
        case _:
            return [
                f"{ast.unparse(node)!r:.60} is not allowed; only names, numbers, + - * / // % **,"
                f" comparisons and {', '.join(_FUNCTIONS)}"
            ]


def _call_problems(function: str, args: list[ast.expr]) -> list[str]:
    if function not in _FUNCTIONS:
        return [_unknown(function, "function", _FUNCTIONS)]
    _, fewest, most = _FUNCTIONS[function]
    if fewest <= len(args) <= most:
        return []
    wanted = f"{fewest} to {most}" if fewest != most else str(fewest)
    return [f"{function} takes {wanted} arguments, {len(args)} given"]


def _unknown(name: str, what: str, valid: Collection[str]) -> str:
    return f"no {what} {name!r}; valid: {', '.join(sorted(valid)) or 'none'}"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer no float can hold
        return False


def _evaluate(node: ast.expr, values: Mapping[str, float]) -> float:
    """The value of a tree that `_problems` found nothing in."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=sign, operand=operand):
            return _UNARY[type(sign)](_evaluate(operand, values))
        case ast.BinOp(left=left, op=op, right=right):
            return float(_BINARY[type(op)](_evaluate(left, values), _evaluate(right, values)))
        case ast.Compare(left=left, ops=ops, comparators=others):
            terms = [_evaluate(term, values) for term in (left, *others)]
            steps = zip(ops, terms, terms[1:], strict=False)
            return float(all(_COMPARE[type(op)](a, b) for op, a, b in steps))
        case ast.Call(func=ast.Name(id=function), args=args):
            return float(_FUNCTIONS[function][0](*(_evaluate(arg, values) for arg in args)))
        case _:
            raise AssertionError(f"unreachable: {ast.dump(node)}")
