"""Works out small sums in a model YAML, such as `64*2` or `(128+64)//2`, by a grammar of its own.

    sum      = product { ("+" | "-") product }
    product  = signed { ("*" | "/" | "//" | "%") signed }
    signed   = [ "+" | "-" ] signed | number | "(" sum ")"

Nothing else is read: no names, no powers, no calls. Lengths, depth and results are bounded, and division is
exact (fractions), so that no text can cost more than its length. Must not know what the number is for.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_CHARS = 60
MAX_NESTING = 8
MAX_RESULT = 10**9

_TOKEN = re.compile(r" *([0-9]{1,9}(?:\.[0-9]{1,9})?|//|[-+*/%()])")


class SumError(ValueError):
    """A text that is no sum, or whose result is out of bounds; the message says which."""


def looks_like_sum(text: str) -> bool:
    """Tell whether a text has nothing but digits, points, blanks, brackets and operators, and a digit."""
    return bool(re.fullmatch(r"[-+*/%() .0-9]+", text)) and any(char.isdigit() for char in text)


def work_out(text: str) -> int | float:
    """Return the value of a sum, an int where it is whole; raises SumError."""
    if len(text) > MAX_CHARS:
        raise SumError(f"a sum may have {MAX_CHARS} characters at most")
    parser = _Parser(_tokens(text))
    value = parser.sum(0)
    if parser.rest:
        raise SumError(f"cannot go on at {parser.rest[0]!r}")
    return int(value) if value.denominator == 1 else float(value)


def _tokens(text: str) -> list[str]:
    found, place, end = [], 0, len(text.rstrip(" "))
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            raise SumError("a sum has numbers, + - * / // % and brackets only")
        found.append(match[1])
        place = match.end()
    return found


class _Parser:
    """Recursive descent over the tokens that are left."""

    def __init__(self, tokens: list[str]) -> None:
        self.rest = tokens

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while self.rest and self.rest[0] in ("+", "-"):
            sign = 1 if self.rest.pop(0) == "+" else -1
            value = _bounded(value + sign * self.product(depth))
        return value

    def product(self, depth: int) -> Fraction:
        value = self.signed(depth)
        while self.rest and self.rest[0] in ("*", "/", "//", "%"):
            operator, other = self.rest.pop(0), self.signed(depth)
            if operator != "*" and other == 0:
                raise SumError("division by zero")
            value = _bounded(_apply(operator, value, other))
        return value

    def signed(self, depth: int) -> Fraction:
        if depth > MAX_NESTING:
            raise SumError(f"nested more than {MAX_NESTING} deep")
        if not self.rest:
            raise SumError("a number is missing at the end")
        token = self.rest.pop(0)
        if token in ("+", "-"):
            value = self.signed(depth + 1)
            return -value if token == "-" else value
        if token == "(":
            value = self.sum(depth + 1)
            if not self.rest or self.rest.pop(0) != ")":
                raise SumError("a closing bracket is missing")
            return value
        if not token[0].isdigit():
            raise SumError(f"a number is missing before {token!r}")
        return Fraction(token)


def _apply(operator: str, a: Fraction, b: Fraction) -> Fraction:
    if operator == "*":
        return a * b
    if operator == "/":
        return a / b
    return Fraction(a // b) if operator == "//" else a % b


def _bounded(value: Fraction) -> Fraction:
    # A denominator as large would be no size of anything either.
    if abs(value) > MAX_RESULT or value.denominator > 10**18:
        raise SumError(f"a result may be {MAX_RESULT:,} at most")
    return value
