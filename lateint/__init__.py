"""Late-interaction retrieval: build an index of token embeddings, search it by MaxSim."""

from lateint.disk.manifest import FormatError
from lateint.ids import UnknownIdError
from lateint.index import Index, search
from lateint.retrieval.hits import Explanation, Hits
from lateint.version import __version__
from lateint_kernels import Ragged

__all__ = ["Explanation", "FormatError", "Hits", "Index", "Ragged", "UnknownIdError", "__version__", "search"]
