"""Messages that name options, where those of an index name the arguments that they stand for."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager

CARRIED = {"texts": "--documents:", "metadata": "--documents:", "sparse": "--documents:"}  # how messages of these begin


@contextmanager
def options_for(**names: str) -> Iterator[None]:
    """Has messages that begin with the name of an argument begin with that of the option for it."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if len(error.args) == 1 and isinstance(message := error.args[0], str):
            first, *rest = message.split(" ", 1)
            error.args = (" ".join([names.get(first, first), *rest]),)
        raise


@contextmanager
def options_of(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Has messages name options and not the arguments of Python that they stand for."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if len(error.args) == 1 and isinstance(message := error.args[0], str):
            error.args = (_with_options(message, set(_destinations(parser))),)
        raise


def _destinations(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _destinations(command)
        elif any(option.startswith("--") for option in action.option_strings):
            yield action.dest


def _with_options(message: str, names: set[str]) -> str:
    """An argument is the first word, has an underscore, or is written ``name=``, perhaps with True behind it."""

    def option(match: re.Match[str]) -> str:
        known = match["name"] in names
        marked = match.start() == 0 or "_" in match["name"] or match["value"]
        return f"--{match['name'].replace('_', '-')}" if known and marked else match[0]

    return re.sub(r"(?<![\w/.'\"-])(?P<name>[a-z]+(?:_[a-z]+)*)(?P<value>=(?:True)?)?(?![\w/.'\"])", option, message)
