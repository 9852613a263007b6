"""``lateint serve``: opens indexes and answers until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import uvicorn

from lateint import Index
from lateint.cli import inputs
from lateint_server.application import application
from lateint_server.keys import Keys
from lateint_server.patience import protocol
from lateint_server.settings import Settings
from lateint_server.watching import log_to_stderr

LOG = logging.getLogger("lateint_server")
CONNECTIONS = 1024  # at once
# Seconds until the event loop lets the thread that searches have Python's lock, which it needs a moment between two
# searches. With Python's own 5 ms, answers of the last search were sent before the next one began.
SWITCH = 0.0002


def serve(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Runs a server as the options say.

    Raises:
        ValueError, OSError: an option is wrong, an index cannot be opened, or the address is in use.
    """
    given = vars(options)
    chosen = {one.name: given[one.name] for one in fields(Settings) if one.name in given}
    settings = Settings(**{**chosen, "keys": Keys.read(options.keys, environment)})
    paths = named(options.paths)
    encoder = encoders(options.encoder, options.encoder_options, list(paths))
    indexes = {
        name: Index.open(path, encoder=encoder[name], verify=options.verify, device=options.device)
        for name, path in paths.items()
    }
    log_to_stderr(options.log_level)
    with _bound(settings) as listening:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{listening.getsockname()[1]}"
        about = {name: f"{len(index):,} documents" for name, index in indexes.items()}
        LOG.info("serving", extra={"url": url, "indexes": about, "keys": bool(settings.keys)})
        running = server(indexes, settings)
        # While uvicorn runs, it hears signals; one may come before, and it raises them again when all is done.
        signal.signal(signal.SIGTERM, lambda *_: setattr(running, "should_exit", True))
        print(f"lateint: open {url}/ in a browser; Ctrl-C ends", flush=True)
        sys.setswitchinterval(SWITCH)
        running.run([listening])
    LOG.info("ended")


def server(indexes: Mapping[str, Index], settings: Settings) -> uvicorn.Server:
    """uvicorn around the application."""
    return uvicorn.Server(
        uvicorn.Config(
            application(indexes, settings),
            http=protocol(settings.client_timeout),
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=max(1, round(settings.shutdown)),
        )
    )


def named(paths: Sequence[str]) -> dict[str, Path]:
    """Indexes by name: ``NAME=PATH``, or a path whose last part is the name.

    Raises:
        ValueError: two have one name, or a name is none.
    """
    found: dict[str, Path] = {}
    for text in paths:
        before, equals, after = text.partition("=")
        name, path = (before, after) if equals and "/" not in before else (Path(text).resolve().name, text)
        if not name or not all(character.isalnum() or character in "-_." for character in name) or name[0] == ".":
            raise ValueError(f"an index needs a name of letters, digits, - _ and ., got {name!r}; give NAME=PATH")
        if name in found:
            raise ValueError(f"two indexes are called {name!r}; give NAME=PATH")
        found[name] = Path(path)
    return found


def encoders(classes: Sequence[str], arguments: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """The encoder of each index, or None; those that are alike are made once.

    Args:
        classes: ``MODULE:CLASS``, or ``NAME=MODULE:CLASS`` for one index.
        arguments: of these classes, in JSON, likewise.
        names: of the indexes.

    Raises:
        ValueError: two are for the same index, or one is for none of them; or as `inputs.encoder`.
    """
    classes_of, arguments_of = _by_name(classes, "--encoder", names), _by_name(arguments, "--encoder-options", names)
    made: dict[tuple[str, str], Any] = {}
    found: dict[str, Any] = {}
    for name in names:
        kind = classes_of.get(name, classes_of.get(""))
        how = kind or "", arguments_of.get(name, arguments_of.get("", "{}"))
        if kind is not None and how not in made:
            made[how] = inputs.encoder(*how)
        found[name] = made.get(how)
    return found


def _by_name(values: Sequence[str], option: str, names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in values:
        before, equals, after = text.partition("=")
        name, value = (before, after) if equals and not set(before) & set(":{") else ("", text)
        if name and name not in names:
            raise ValueError(f"{option} must name one of the indexes {', '.join(names)}, got {name!r}")
        if name in found:
            raise ValueError(f"{option} is given twice for {name or 'all indexes'}")
        found[name] = value
    return found


def _bound(settings: Settings) -> socket.socket:
    """A socket that listens: an address in use is known before anything else, and clients may come at once."""
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, settings.port))
        one.listen(CONNECTIONS)
    except OSError as error:
        one.close()
        raise OSError(f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}") from None
    return one
