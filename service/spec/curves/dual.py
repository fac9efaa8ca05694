"""Dual numbers: a value with its derivative by one variable, so that a formula gives its gradient too.

Forward-mode differentiation. The functions are the ones that losses are made of, with torch's derivatives where there
are two to choose from (`relu` has 0 at 0), and without overflow at any argument.
"""

import math
from dataclasses import dataclass

_CAP = 340.0  # of workers.losses.numerics.capped_expm1 in float64


@dataclass(frozen=True)
class Dual:
    value: float
    slope: float = 0.0

    def __add__(self, other: "Dual | float") -> "Dual":
        other = _dual(other)
        return Dual(self.value + other.value, self.slope + other.slope)

    def __sub__(self, other: "Dual | float") -> "Dual":
        return self + -_dual(other)

    def __neg__(self) -> "Dual":
        return Dual(-self.value, -self.slope)

    def __mul__(self, other: "Dual | float") -> "Dual":
        other = _dual(other)
        return Dual(self.value * other.value, self.slope * other.value + self.value * other.slope)

    def __truediv__(self, divisor: float) -> "Dual":
        return Dual(self.value / divisor, self.slope / divisor)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: float) -> "Dual":
        return -self + other


def _dual(number: Dual | float) -> Dual:
    return number if isinstance(number, Dual) else Dual(number)


def squared(x: Dual) -> Dual:
    return x * x


def relu(x: Dual) -> Dual:
    return x if x.value > 0 else Dual(0.0)


def exp(x: Dual) -> Dual:
    value = math.exp(x.value)
    return Dual(value, value * x.slope)


def sigmoid(x: Dual) -> Dual:
    value = _sigmoid(x.value)
    return Dual(value, value * _sigmoid(-x.value) * x.slope)


def log_sigmoid(x: Dual) -> Dual:
    value = min(x.value, 0.0) - math.log1p(math.exp(-abs(x.value)))
    return Dual(value, _sigmoid(-x.value) * x.slope)


def log1m_exp(x: Dual) -> Dual:
    """log(1 - exp(x)), x below 0."""
    return Dual(math.log(-math.expm1(x.value)), x.slope / -math.expm1(-x.value))


def capped_expm1(x: Dual) -> Dual:
    """exp(x) - 1, which from a cap on grows as a logarithm does."""
    below, beyond = min(x.value, _CAP), max(x.value - _CAP, 0.0)
    value = math.expm1(below) + math.exp(_CAP) * math.log1p(beyond)
    slope = math.exp(below) / (1 + beyond)
    return Dual(value, slope * x.slope)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
