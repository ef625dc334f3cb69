"""Outlines of the testbed's subjects and objects, as polygons in the square from (-1, -1), top left, to (1, 1)."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Paint = Literal["body", "dark", "light"]
Number = int | float


class Part(NamedTuple):
    """One filled polygon of a shape; "body" takes the colour of the scene, later parts cover earlier ones."""

    paint: Paint
    corners: Float[np.ndarray, "corner 2"]


def subject_shapes() -> dict[str, tuple[Part, ...]]:
    """The eight subjects by name; each reaches y = 1, where it stands."""
    return {
        "star": (Part("body", _star()),),
        "heart": (Part("body", _heart()),),
        "moon": (Part("body", _moon()),),
        "ball": (Part("body", _ellipse(0, 0, 1, 1)), Part("light", _box(-0.97, -0.2, 0.97, 0.2))),
        "cat": (
            Part("body", _polygon(-0.9, -1, -0.3, -0.6, 0.3, -0.6, 0.9, -1, 1, 0.25, 0.55, 1, -0.55, 1, -1, 0.25)),
            *_eyes(0.42, -0.05, 0.24),
            Part("dark", _polygon(-0.2, 0.35, 0.2, 0.35, 0, 0.62)),
        ),
        "fish": (
            Part("body", _polygon(-0.45, 0.15, -1, -0.75, -1, 1)),
            Part("body", _ellipse(0.22, 0.15, 0.78, 0.78)),
            *_eye(0.55, -0.1, 0.22),
        ),
        "kite": (
            Part("body", _polygon(0, -1, 0.9, -0.2, 0, 0.75, -0.9, -0.2)),
            Part("dark", _box(-0.02, -0.95, 0.02, 0.7)),
            Part("dark", _box(-0.85, -0.22, 0.85, -0.18)),
            Part("dark", _polygon(0, 0.75, 0.5, 0.62, 0.5, 1, -0.5, 0.62, -0.5, 1)),
        ),
        "robot": (
            Part("dark", _box(-0.1, -1, 0.1, -0.6)),
            Part("body", _box(-0.8, -0.65, 0.8, 0.4)),
            Part("body", _box(-0.5, 0.4, -0.15, 1)),
            Part("body", _box(0.15, 0.4, 0.5, 1)),
            Part("light", _box(-0.55, -0.4, -0.15, 0)),
            Part("light", _box(0.15, -0.4, 0.55, 0)),
            Part("dark", _box(-0.45, 0.14, 0.45, 0.26)),
        ),
    }


def object_shapes() -> dict[str, tuple[Part, ...]]:
    """The six objects by name; each reaches y = 1, where it stands, and y = -1, where something can sit."""
    return {
        "box": (
            Part("body", _box(-0.85, -1, 0.85, 1)),
            Part("light", _box(-0.18, -0.97, 0.18, 0.97)),
            Part("light", _box(-0.82, -0.18, 0.82, 0.18)),
        ),
        "table": (
            Part("body", _box(-1, -1, 1, -0.55)),
            Part("body", _box(-0.85, -0.55, -0.55, 1)),
            Part("body", _box(0.55, -0.55, 0.85, 1)),
        ),
        "house": (
            Part("body", _box(-0.75, -0.2, 0.75, 1)),
            Part("body", _polygon(-1, -0.15, -0.4, -1, 0.4, -1, 1, -0.15)),
            Part("light", _box(-0.58, 0.15, -0.12, 0.55)),
            Part("dark", _box(0.15, 0.2, 0.52, 1)),
        ),
        "tree": (
            Part("dark", _box(-0.18, 0.3, 0.18, 1)),
            Part("body", _polygon(-0.95, 0.45, -0.3, -0.4, 0.3, -0.4, 0.95, 0.45)),
            Part("body", _polygon(-0.7, -0.3, -0.25, -1, 0.25, -1, 0.7, -0.3)),
        ),
        "car": (
            Part("body", _polygon(-1, 0, -0.7, -0.15, -0.4, -1, 0.5, -1, 0.75, -0.15, 1, 0, 1, 0.65, -1, 0.65)),
            Part("light", _polygon(-0.42, -0.2, -0.22, -0.75, 0.32, -0.75, 0.48, -0.2)),
            Part("dark", _ellipse(-0.55, 0.66, 0.3, 0.34)),
            Part("dark", _ellipse(0.55, 0.66, 0.3, 0.34)),
        ),
        "boat": (
            Part("dark", _box(-0.08, -1, 0.08, 0.2)),
            Part("light", _polygon(0.1, -0.95, 0.85, 0, 0.1, 0)),
            Part("light", _polygon(-0.1, -0.75, -0.1, 0, -0.65, 0)),
            Part("body", _polygon(-1, 0.12, 1, 0.12, 0.65, 1, -0.65, 1)),
        ),
    }


def _polygon(*numbers: Number) -> Float[np.ndarray, "corner 2"]:
    return np.array(numbers, np.float64).reshape(-1, 2)


def _box(left: Number, top: Number, right: Number, bottom: Number) -> Float[np.ndarray, "4 2"]:
    return _polygon(left, top, right, top, right, bottom, left, bottom)


def _ellipse(x: Number, y: Number, width: Number, height: Number, corners: int = 16) -> Float[np.ndarray, "corner 2"]:
    """`width` and `height` are half axes."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=-1)


def _star() -> Float[np.ndarray, "10 2"]:
    angle = np.pi * np.arange(10) / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2, 0.5, 1.12)
    return np.stack([radius * np.cos(angle), 0.1 + radius * np.sin(angle)], axis=-1)


def _heart() -> Float[np.ndarray, "24 2"]:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x = np.sin(angle) ** 3
    y = -(13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle))
    return np.stack([x, (y - 2.5) / 14.5], axis=-1)


def _moon() -> Float[np.ndarray, "24 2"]:
    """A crescent open to the right: an outer arc and, back again, a flatter inner one."""
    outer = np.linspace(0.28 * np.pi, 1.72 * np.pi, 14)
    inner = np.linspace(1.6 * np.pi, 0.4 * np.pi, 10)
    rim = np.stack([0.15 + np.cos(outer), np.sin(outer)], axis=-1)
    hollow = np.stack([0.62 + 0.72 * np.cos(inner), 0.72 * np.sin(inner)], axis=-1)
    return np.concatenate([rim, hollow])


def _eye(x: Number, y: Number, radius: Number) -> tuple[Part, Part]:
    return Part("light", _ellipse(x, y, radius, radius, 8)), Part("dark", _ellipse(x, y, radius / 2, radius / 2, 6))


def _eyes(apart: Number, y: Number, radius: Number) -> tuple[Part, ...]:
    return _eye(-apart, y, radius) + _eye(apart, y, radius)


SHAPES = subject_shapes() | object_shapes()
