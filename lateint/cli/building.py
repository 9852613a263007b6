"""The commands that make an index: build, convert, train-codec and merge."""

from __future__ import annotations

import argparse
import time
from typing import Any

from lateint.cli import inputs
from lateint.cli.files import load
from lateint.cli.messages import CARRIED, options_for
from lateint.cli.options import add_build_settings, add_documents, add_threads, add_tokens, build_settings
from lateint.converting import reading
from lateint.index import Index
from lateint.indexing.codec import Codec
from lateint.indexing.training import train_codec


def add_to(commands: Any) -> None:
    """Adds the commands to those of ``lateint``."""
    command = commands.add_parser("build", help="build an index from saved embeddings")
    command.add_argument("path", help="the index, a new folder")
    add_documents(command)
    command.add_argument("--ids", help="JSON list with one id a document; their positions where left out")
    add_build_settings(command)
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
    add_threads(command)
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
    add_threads(command)
    command.set_defaults(command=convert)

    command = commands.add_parser("train-codec", help="learn how to compress, for indexes that are built in parts")
    command.add_argument("path", help="the codec, a new folder")
    add_tokens(command, "")
    add_build_settings(command)
    command.add_argument(
        "--ncentroids", type=int, help="about one for 48 tokens of all that is to be indexed, up to 16,384"
    )
    command.add_argument("--device", help="where to learn: cpu, cuda or cuda:N (cpu); the codec is the same")
    command.add_argument("--overwrite", action="store_true", help="replace a codec that is already there")
    add_threads(command)
    command.set_defaults(command=train)

    command = commands.add_parser("merge", help="make one index of several that were built with one codec")
    command.add_argument("path", help="the index, a new folder")
    command.add_argument("parts", nargs="+", help="indexes, in the order of their documents")
    command.add_argument("--overwrite", action="store_true", help="replace an index that is already there")
    command.set_defaults(command=merge)


def build(options: argparse.Namespace) -> None:
    """Builds an index on disk from saved embeddings."""
    started = time.perf_counter()
    documents, encoder = inputs.documents(options), inputs.encoder_of(options)
    with options_for(doc_embs="--tokens", lengths="--lengths", offsets="--lengths", ids="--ids", **CARRIED):
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
            **build_settings(options),
        )
    print(f"{options.path}: {len(index):,} documents, {index.tokens:,} tokens in {time.perf_counter() - started:.1f} s")


def convert(options: argparse.Namespace) -> None:
    """Builds an index of one of another library."""
    beside = inputs.beside(options)
    texts = "--documents" if options.texts is None else "--texts"
    with options_for(
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
    with options_for(source="--tokens", doc_embs="--tokens", lengths="--lengths"):
        codec = train_codec(
            load(options.tokens),
            lengths=load(options.lengths),
            ncentroids=options.ncentroids,
            device=options.device,
            **build_settings(options),
        )
    codec.save(options.path, overwrite=options.overwrite)
    print(f"{options.path}: {codec}")


def merge(options: argparse.Namespace) -> None:
    """Makes one index of several."""
    index = Index.merge(options.parts, options.path, overwrite=options.overwrite)
    print(f"{options.path}: {len(index):,} documents of {len(options.parts)} parts")
