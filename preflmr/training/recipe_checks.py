"""Ranges and choices of settings: each is refused in one sentence."""

from __future__ import annotations


def at_least(value: float | None, least: float, name: str) -> None:
    """None is a setting that is not made."""
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def between(value: float, least: float, most: float, name: str) -> None:
    """Both ends are allowed."""
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least} and {most}, got {value}")


def one_of(value: str, allowed: tuple[str, ...], name: str) -> None:
    """A choice by name."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
