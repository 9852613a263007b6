"""Late-interaction retrieval: build an index of token embeddings, search it by MaxSim."""

import logging

from lateint.disk.commits import LockedError
from lateint.disk.manifest import FormatError
from lateint.documents import Document, FieldError
from lateint.filtering.tree import FilterError
from lateint.ids import UnknownIdError
from lateint.index import Index, search
from lateint.indexing.codec import Codec
from lateint.indexing.training import train_codec
from lateint.retrieval.hits import Explanation, Hit, Hits
from lateint.sharding.calling import LostError
from lateint.sharding.shards import Shards
from lateint.text.analyzer import Analyzer
from lateint.version import __version__
from lateint_kernels import Ragged

logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "Analyzer",
    "Codec",
    "Document",
    "Explanation",
    "FieldError",
    "FilterError",
    "FormatError",
    "Hit",
    "Hits",
    "Index",
    "LockedError",
    "LostError",
    "Ragged",
    "Shards",
    "UnknownIdError",
    "__version__",
    "search",
    "train_codec",
]
