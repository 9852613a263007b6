"""The command ``lateint``: build, search, evaluate and look at an index from a shell."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module, metadata
from textwrap import shorten
from typing import Any

import numpy as np

import lateint_kernels
from lateint import eval_command, inputs
from lateint.changing.draft import DUPLICATES
from lateint.converting import reading
from lateint.index import Index
from lateint.indexing.codec import Codec
from lateint.indexing.training import train_codec
from lateint.version import __version__

TEXT = ("text", "sparse", "alpha", "fusion", "rerank")
_CARRIED = {
    "texts": "--documents:",
    "metadata": "--documents:",
    "sparse": "--documents:",
}  # how messages begin that name these arguments
SHOWN = 80  # characters of a text in a table
COMPANIONS = ("numpy", "torch", "triton", "transformers")


def run() -> None:
    """The console script: what a user can mend ends in one line and status 1, not in a traceback."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (TypeError, ValueError, OSError, ImportError, MemoryError, lateint_kernels.BackendError) as error:
        sys.exit(f"lateint: error: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; ``arguments`` as in a shell, without the program's name."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    with inputs.options_of(parser):
        options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lateint", description="Late-interaction retrieval on saved embeddings.")
    parser.add_argument("--version", action="version", version=f"lateint {__version__}")
    parser.add_argument("--verbose", "-v", action="store_true", help="say on standard error what is done")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("info", help="versions, instruction set and threads, for bug reports")
    command.set_defaults(command=info)

    command = commands.add_parser("build", help="build an index from saved embeddings")
    command.add_argument("path", help="the index, a new folder")
    _add_documents(command)
    command.add_argument("--ids", help="JSON list with one id a document; their positions where left out")
    _add_build_settings(command)
    command.add_argument("--device", help="where to build: cpu, cuda or cuda:N (cpu); the files are the same")
    command.add_argument(
        "--allow-empty", action="store_true", help="keep documents without tokens; no search finds them"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an index that is already there")
    command.add_argument(
        "--text-search",
        nargs="?",
        const="{}",
        metavar="JSON",
        help='search texts by their words; JSON: settings of lateint.Analyzer, such as {"stem": "english"}',
    )
    command.add_argument("--codec", help="folder of a codec, see train-codec; nothing is learned then")
    command.add_argument("--resume", action="store_true", help="go on with what a killed build of the same left")
    _add_threads(command)
    command.set_defaults(command=build)

    command = commands.add_parser("convert", help="build an index of one of ColBERT, fast-plaid or xtr-warp-rs")
    command.add_argument("source", help="the folder of the other index")
    command.add_argument("path", help="the index, a new folder")
    command.add_argument("--format", choices=(reading.AUTO, *reading.FORMATS), default=reading.AUTO, help="(auto)")
    command.add_argument("--ids", help="JSON list with one id a document, or object from the numbers there to ids")
    command.add_argument("--texts", metavar="FILE", help="texts of the documents; line i, from 0, is of number i there")
    command.add_argument(
        "--documents", metavar="JSONL", help="what documents carry, in the same order: text, metadata or both"
    )
    command.add_argument("--nbits", type=int, choices=(1, 2, 4, 8), default=4, help="bits a dimension (4)")
    command.add_argument("--max-ram", type=int, metavar="BYTES", help="of working memory that the build may use")
    command.add_argument("--device", help="where to build: cpu, cuda or cuda:N (cpu); the files are the same")
    command.add_argument("--overwrite", action="store_true", help="replace an index that is already there")
    command.add_argument("--resume", action="store_true", help="go on with what a killed conversion of the same left")
    _add_threads(command)
    command.set_defaults(command=convert)

    command = commands.add_parser("train-codec", help="learn how to compress, for indexes that are built in parts")
    command.add_argument("path", help="the codec, a new folder")
    inputs.add_tokens(command, "")
    _add_build_settings(command)
    command.add_argument(
        "--ncentroids", type=int, help="about one for 48 tokens of all that is to be indexed, up to 16,384"
    )
    command.add_argument("--device", help="where to learn: cpu, cuda or cuda:N (cpu); the codec is the same")
    command.add_argument("--overwrite", action="store_true", help="replace a codec that is already there")
    _add_threads(command)
    command.set_defaults(command=train)

    command = commands.add_parser("merge", help="make one index of several that were built with one codec")
    command.add_argument("path", help="the index, a new folder")
    command.add_argument("parts", nargs="+", help="indexes, in the order of their documents")
    command.add_argument("--overwrite", action="store_true", help="replace an index that is already there")
    command.set_defaults(command=merge)

    command = commands.add_parser("search", help="search an index with saved queries, texts or both")
    command.add_argument("path", help="an index")
    command.add_argument("queries", nargs="*", metavar="QUERY", help="texts, with --encoder")
    inputs.add_encoder(command)
    inputs.add_tokens(command, "", required=False)
    _add_text(command)
    command.add_argument("-k", type=inputs.count, default=5, help="hits a query (5)")
    _add_search_settings(command)
    _add_filter(command)
    command.add_argument("--fields", help="of the documents found, with commas between; text is the text")
    command.add_argument(
        "--device-memory", type=inputs.count, metavar="BYTES", help="that the index may take on a device"
    )
    command.add_argument("--json", action="store_true", help="one JSON object a query instead of a table")
    _add_threads(command)
    command.set_defaults(command=search)

    command = commands.add_parser("stats", help="sizes of an index, by part")
    command.add_argument("path", help="an index")
    command.set_defaults(command=stats)

    command = commands.add_parser("add", help="add saved embeddings to an index")
    command.add_argument("path", help="the index")
    _add_documents(command)
    command.add_argument("--ids", help="JSON list with one id a document; numbers that follow the largest if left out")
    command.add_argument(
        "--on-duplicate", choices=DUPLICATES, default="raise", help="what happens to an id that is there (raise)"
    )
    command.set_defaults(command=add)

    command = commands.add_parser("delete", help="delete documents from an index")
    command.add_argument("path", help="the index")
    command.add_argument("ids", nargs="*", help="of the documents")
    command.add_argument("--ids", dest="file", metavar="FILE", help="JSON list of ids")
    _add_filter(command)
    command.set_defaults(command=delete)

    command = commands.add_parser("get", help="texts and metadata of documents, a JSON object each")
    command.add_argument("path", help="an index")
    command.add_argument("ids", nargs="*", help="of the documents; all where there is no filter either")
    command.add_argument("--fields", help="names of fields, with commas between; text is the text")
    _add_filter(command)
    command.set_defaults(command=get)

    command = commands.add_parser("compact", help="join small segments, and those with many deleted documents")
    command.add_argument("path", help="the index")
    command.add_argument("--full", action="store_true", help="into one segment, which takes the least room")
    command.set_defaults(command=compact)

    command = commands.add_parser("set-text-search", help="search texts that are stored by their words from now on")
    command.add_argument("path", help="the index")
    command.add_argument("--text-search", metavar="JSON", default="{}", help="settings of lateint.Analyzer")
    command.add_argument("--off", action="store_true", help="do not search them any more")
    command.set_defaults(command=set_text_search)

    command = commands.add_parser(
        "calibrate", help="measure which settings of a search reach which recall, and keep it"
    )
    command.add_argument("path", help="the index")
    command.add_argument("queries", nargs="*", metavar="QUERY", help="texts, with --encoder")
    inputs.add_encoder(command)
    inputs.add_tokens(command, "", required=False)
    command.add_argument("-k", type=inputs.count, nargs="+", default=[10, 100], help="hits a query will want (10 100)")
    command.add_argument("-n", type=inputs.count, default=400, help="queries to ask at most (400); 0.99 needs 99")
    command.add_argument("--device", help="where to measure: cpu, cuda or cuda:N (cpu); the result is the same")
    _add_threads(command)
    command.set_defaults(command=calibrate)

    command = commands.add_parser("verify", help="read all of an index and say whether it is sound; status 1 if not")
    command.add_argument("path", help="the index")
    command.set_defaults(command=verify)

    command = commands.add_parser("snapshot", help="a second index of the same files, by links")
    command.add_argument("path", help="the index")
    command.add_argument("target", help="a new folder")
    command.add_argument("--overwrite", action="store_true", help="replace an index that is already there")
    command.set_defaults(command=snapshot)

    serving = import_module("lateint_server.options")  # a room above this one, which is found by its name
    serving.add(commands.add_parser("serve", help="serve indexes over HTTP, with a page to search them"))

    eval_command.add_to(commands, _add_build_settings, _add_search_settings, _add_threads)
    return parser


def _add_documents(parser: argparse.ArgumentParser) -> None:
    """Documents as saved embeddings or as texts."""
    inputs.add_tokens(parser, "", required=False)
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="a text a line; .jsonl: objects with _id or id, text and title; .tsv: id, text and title",
    )
    inputs.add_encoder(parser)
    parser.add_argument(
        "--documents",
        metavar="JSONL",
        help="what documents carry: a JSON object a line, with text, metadata, sparse or several of them",
    )


def _add_text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--text", action="append", help="words to be found, once for each query: alone, or with --tokens"
    )
    parser.add_argument(
        "--sparse",
        action="append",
        type=inputs.vector,
        metavar="JSON",
        help="instead of --text, likewise: a sparse vector such as '{\"fox\": 1.5}'",
    )
    parser.add_argument("--alpha", type=float, help="how much MaxSim counts beside BM25 or --sparse, from 0 to 1")
    parser.add_argument("--fusion", help="relative (by scores) or rrf (by ranks)")
    parser.add_argument("--rerank", type=inputs.count, metavar="N", help="order the best N by these by MaxSim instead")


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--filter", help="a condition: JSON, or SQL such as \"lang = 'en' AND year >= 2020\"")
    parser.add_argument("--params", metavar="JSON", help="values for the :names in a filter in SQL")


def _add_build_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nbits", type=int, choices=(1, 2, 4, 8), help="bits a dimension (4, or the codec's)")
    parser.add_argument("--seed", type=int, help="of the clustering (0, or the codec's)")
    parser.add_argument("--max-ram", type=int, metavar="BYTES", help="of working memory that the build may use")
    parser.add_argument("--pool", type=int, metavar="N", help="leave one of N tokens of a document, those alike as one")


def _add_search_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nprobe", type=inputs.count, help="centroids a query token looks into")
    parser.add_argument("--candidates", type=inputs.count, help="documents that are scored exactly")
    parser.add_argument("--recall", type=float, help="to reach, such as 0.99, instead of settings; see calibrate")
    parser.add_argument("--exhaustive", action="store_true", help="score every document of the index")
    parser.add_argument("--device", help="where to search: cpu, cuda, cuda:N or several: cuda:0,cuda:1 (cpu)")


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=inputs.count, help="how many threads (as many as CPUs may be used)")


def info(options: argparse.Namespace) -> None:
    """Prints what a bug report needs."""
    print(f"lateint       {__version__}")
    print(f"python        {platform.python_version()}, {platform.platform()}")
    for name, state in lateint_kernels.explain().items():
        print(f"{name:13} {state}")
    for name in COMPANIONS:
        try:
            print(f"{name:13} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name:13} not installed")


def build(options: argparse.Namespace) -> None:
    """Builds an index on disk from saved embeddings."""
    started = time.perf_counter()
    documents, encoder = inputs.documents(options), inputs.encoder_of(options)
    with inputs.options_for(doc_embs="--tokens", lengths="--lengths", offsets="--lengths", ids="--ids", **_CARRIED):
        index = Index.build(
            path=options.path,
            **documents,
            encoder=encoder,
            allow_empty=options.allow_empty,
            overwrite=options.overwrite,
            resume=options.resume,
            codec=None if options.codec is None else Codec.load(options.codec),
            text_search=inputs.analyzer(options.text_search),
            device=options.device,
            **inputs.build_settings(options),
        )
    print(f"{options.path}: {len(index):,} documents, {index.tokens:,} tokens in {time.perf_counter() - started:.1f} s")


def convert(options: argparse.Namespace) -> None:
    """Builds an index of one of another library."""
    beside = inputs.beside(options)
    texts = "--documents" if options.texts is None else "--texts"
    with inputs.options_for(
        source="SOURCE", ids="--ids", max_ram="--max-ram", texts=texts, metadata="--documents", resume="--resume"
    ):
        index = Index.convert(
            options.source,
            options.path,
            format=options.format,
            nbits=options.nbits,
            **beside,
            max_ram=options.max_ram,
            overwrite=options.overwrite,
            resume=options.resume,
            threads=options.threads,
            device=options.device,
        )
    print(f"{options.path}: {len(index):,} documents, {index.tokens:,} tokens")


def train(options: argparse.Namespace) -> None:
    """Learns a codec from saved embeddings."""
    with inputs.options_for(source="--tokens", doc_embs="--tokens", lengths="--lengths"):
        codec = train_codec(
            inputs.load(options.tokens),
            lengths=inputs.load(options.lengths),
            ncentroids=options.ncentroids,
            device=options.device,
            **inputs.build_settings(options),
        )
    codec.save(options.path, overwrite=options.overwrite)
    print(f"{options.path}: {codec}")


def merge(options: argparse.Namespace) -> None:
    """Makes one index of several."""
    index = Index.merge(options.parts, options.path, overwrite=options.overwrite)
    print(f"{options.path}: {len(index):,} documents of {len(options.parts)} parts")


def search(options: argparse.Namespace) -> None:
    """Prints the hits of every saved query."""
    if options.queries and options.tokens is not None:
        raise ValueError("give either QUERY, with --encoder, or --tokens and --lengths")
    if not options.queries and options.tokens is None and options.text is None and options.sparse is None:
        raise ValueError("give QUERY, with --encoder, --tokens and --lengths, --text or --sparse")
    with inputs.options_for(device="--device", device_memory="--device-memory"):
        index = Index.open(
            options.path,
            encoder=inputs.encoder_of(options),
            device=options.device,
            device_memory=options.device_memory,
        )
    fields = None if options.fields is None else options.fields.split(",")
    with inputs.options_for(
        Q="QUERY" if options.queries else "--tokens",
        tokens="--tokens",
        lengths="--lengths",
        offsets="--lengths",
        filter="--filter",
        params="--params",
        recall="--recall",
        **{name: f"--{name}" for name in TEXT},
    ):
        queries: Any = options.queries or None
        if options.tokens is not None:
            queries = list(inputs.packed_queries(options))
        chosen = inputs.condition(options.filter, options.params)
        results = index.search(
            queries, options.k, **chosen, **_text_settings(options), **inputs.search_settings(options)
        )
    for number, hits in enumerate(results):
        found: list[dict[str, Any]] = [{"id": id, "score": score} for id, score in hits]
        if fields is None:
            besides = [{} if text is None else {"text": text} for text in hits.texts]
        else:
            besides = [inputs.as_json(document) for document in hits.documents(fields)]
        for one, more in zip(found, besides, strict=True):
            one |= more
        if options.json:
            print(json.dumps({"query": number, "hits": found}, ensure_ascii=False))
            continue
        print(
            f"query {number}" + (f": {options.queries[number]}" if options.queries else ""),
            *map(_line, found),
            sep="\n",
        )


def _line(hit: dict[str, Any]) -> str:
    """A hit in a table."""
    metadata = [json.dumps(hit["metadata"], ensure_ascii=False)] if hit.get("metadata") else []
    return "  ".join(
        [f"{hit['score']:12.4f}", str(hit["id"]), shorten(hit.get("text") or "", SHOWN), *metadata]
    ).rstrip()


def get(options: argparse.Namespace) -> None:
    """Prints texts and metadata."""
    index = Index.open(options.path)
    with inputs.options_for(fields="--fields", filter="--filter", params="--params"):
        condition = inputs.condition(options.filter, options.params)
        if condition and options.ids:
            raise ValueError("filter takes the place of ids; give one of them")
        names = index.select(**condition) if condition else _ids(index, options.ids) if options.ids else index.ids
        fields = None if options.fields is None else options.fields.split(",")
        for first in range(0, len(names), 1024):
            for document in index.get(names[first : first + 1024], fields):
                print(json.dumps({"id": document.id, **inputs.as_json(document)}, ensure_ascii=False))


def _ids(index: Index, names: list[str]) -> list[Any]:
    """Ids as a shell hands them over."""
    numbers = len(index) > 0 and not isinstance(index.ids[0], str)
    return [int(name) if numbers else name for name in names]


def stats(options: argparse.Namespace) -> None:
    """Prints the sizes of an index."""
    print(json.dumps(Index.open(options.path).stats(), indent=2, default=_plain))


def add(options: argparse.Namespace) -> None:
    """Adds saved embeddings to an index."""
    documents = inputs.documents(options)
    index = Index.open(options.path, encoder=inputs.encoder_of(options))
    with inputs.options_for(doc_embs="--tokens", lengths="--lengths", offsets="--lengths", ids="--ids", **_CARRIED):
        index.add(**documents, on_duplicate=options.on_duplicate)
    print(index)


def delete(options: argparse.Namespace) -> None:
    """Deletes documents from an index."""
    index = Index.open(options.path)
    ids = _ids(index, options.ids)
    if options.file is not None:
        ids += inputs.read_json(options.file, "--ids")
    with inputs.options_for(filter="--filter", params="--params"):
        condition = inputs.condition(options.filter, options.params)
        count = index.delete(ids if ids or not condition else None, **condition)
    print(f"deleted {count:,}; {len(index):,} documents are left")


def set_text_search(options: argparse.Namespace) -> None:
    """Makes texts searchable by their words, or not any more."""
    analyzer = False if options.off else inputs.analyzer(options.text_search)
    index = Index.open(options.path)
    index.set_text_search(analyzer)
    print(index.analyzer or "texts are not searched")


def compact(options: argparse.Namespace) -> None:
    """Joins segments of an index."""
    index = Index.open(options.path)
    before = index.stats()
    index.compact(full=options.full)
    after = index.stats()
    print(
        f"segments: {before['segments']} before, {after['segments']} now; "
        f"bytes: {before['bytes']:,} before, {after['bytes']:,} now"
    )


def calibrate(options: argparse.Namespace) -> None:
    """Measures recall by saved queries, by texts, or by excerpts of documents, and prints it."""
    if options.queries and options.tokens is not None:
        raise ValueError("give either QUERY, with --encoder, or --tokens and --lengths")
    with inputs.options_for(device="--device"):
        index = Index.open(options.path, encoder=inputs.encoder_of(options), device=options.device)
    with inputs.options_for(Q="QUERY" if options.queries else "--tokens", tokens="--tokens", lengths="--lengths"):
        queries = options.queries or (None if options.tokens is None else list(inputs.packed_queries(options)))
        print(index.calibrate(queries, k=options.k, n=options.n, threads=options.threads))


def verify(options: argparse.Namespace) -> None:
    """Reads all of an index."""
    report = Index.verify(options.path)
    for problem in report.problems:
        print(problem)
    if report.problems:
        sys.exit(1)
    print(
        f"{report.path} is sound: {report.documents:,} documents, {report.tokens:,} tokens, "
        f"{report.segments} segments, generation {report.generation}"
    )


def snapshot(options: argparse.Namespace) -> None:
    """Makes a second index of the same files."""
    Index.open(options.path).snapshot(options.target, overwrite=options.overwrite)


def _text_settings(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in TEXT if (value := getattr(options, name)) is not None}


def _plain(value: Any) -> Any:
    """NumPy's numbers and strings as Python's, for JSON."""
    return value.item() if isinstance(value, np.generic) else value
