"""Options that several commands have, and what they hand on to an index."""

from __future__ import annotations

import argparse
import json
from typing import Any

TEXT = ("text", "sparse", "alpha", "fusion", "rerank")


def count(text: str) -> int:
    """An integer from 1; argparse names the option."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, got {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def vector(text: str) -> dict[str, Any]:
    """A sparse vector in JSON; argparse names the option."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"must be JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object of terms and weights, got {type(found).__name__}")
    return found


def add_tokens(parser: Any, prefix: str, required: bool = True) -> None:
    """Options for saved embeddings."""
    parser.add_argument(
        f"--{prefix}tokens",
        required=required,
        metavar="NPY",
        help="all tokens, end to end [T, dim] or padded [n, L, dim]",
    )
    parser.add_argument(f"--{prefix}lengths", required=required, metavar="NPY", help="[n]: tokens of each")


def add_encoder(parser: Any) -> None:
    """Options for an encoder."""
    parser.add_argument(
        "--encoder", metavar="MODULE:CLASS", help="such as lateint.encoders:PyLate, see lateint.encoders"
    )
    parser.add_argument("--encoder-options", metavar="JSON", default="{}", help="keyword arguments of CLASS")


def add_documents(parser: argparse.ArgumentParser) -> None:
    """Documents as saved embeddings or as texts."""
    add_tokens(parser, "", required=False)
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="a text a line; .jsonl: objects with _id or id, text and title; .tsv: id, text and title",
    )
    add_encoder(parser)
    parser.add_argument(
        "--documents",
        metavar="JSONL",
        help="what documents carry: a JSON object a line, with text, metadata, sparse or several of them",
    )


def add_text(parser: argparse.ArgumentParser) -> None:
    """Options for a search by words, or by words and tokens together."""
    parser.add_argument(
        "--text", action="append", help="words to be found, once for each query: alone, or with --tokens"
    )
    parser.add_argument(
        "--sparse",
        action="append",
        type=vector,
        metavar="JSON",
        help="instead of --text, likewise: a sparse vector such as '{\"fox\": 1.5}'",
    )
    parser.add_argument("--alpha", type=float, help="how much MaxSim counts beside BM25 or --sparse, from 0 to 1")
    parser.add_argument("--fusion", help="relative (by scores) or rrf (by ranks)")
    parser.add_argument("--rerank", type=count, metavar="N", help="order the best N by these by MaxSim instead")


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Options for a condition on metadata."""
    parser.add_argument("--filter", help="a condition: JSON, or SQL such as \"lang = 'en' AND year >= 2020\"")
    parser.add_argument("--params", metavar="JSON", help="values for the :names in a filter in SQL")


def add_build_settings(parser: argparse.ArgumentParser) -> None:
    """Settings of a build."""
    parser.add_argument("--nbits", type=int, choices=(1, 2, 4, 8), help="bits a dimension (4, or the codec's)")
    parser.add_argument("--seed", type=int, help="of the clustering (0, or the codec's)")
    parser.add_argument("--max-ram", type=int, metavar="BYTES", help="of working memory that the build may use")
    parser.add_argument("--pool", type=int, metavar="N", help="leave one of N tokens of a document, those alike as one")


def add_search_settings(parser: argparse.ArgumentParser) -> None:
    """Settings of a search, and where it runs."""
    parser.add_argument("--nprobe", type=count, help="centroids a query token looks into")
    parser.add_argument("--candidates", type=count, help="documents that are scored exactly")
    parser.add_argument("--recall", type=float, help="to reach, such as 0.99, instead of settings; see calibrate")
    parser.add_argument("--exhaustive", action="store_true", help="score every document of the index")
    parser.add_argument("--device", help="where to search: cpu, cuda, cuda:N or several: cuda:0,cuda:1 (cpu)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option for threads."""
    parser.add_argument("--threads", type=count, help="how many threads (as many as CPUs may be used)")


def build_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Those of a build that every command with one has."""
    return {name: getattr(options, name) for name in ("nbits", "seed", "max_ram", "pool", "threads")}


def search_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the user set; the rest is left to the index."""
    settings = {name: getattr(options, name) for name in ("nprobe", "candidates", "recall", "threads")}
    settings = {name: value for name, value in settings.items() if value is not None}
    return {**settings, "exhaustive": True} if options.exhaustive else settings


def text_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the user set of `TEXT`."""
    return {name: value for name in TEXT if (value := getattr(options, name)) is not None}
