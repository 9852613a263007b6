"""Makes colbert.tar.xz with ColBERT 0.2.22, whose encoder is replaced by one that knows the tokens of each passage.

PYTHON make_colbert.py, with colbert-ai 0.2.22, torch 2.11, transformers 4.49, faiss-cpu, ujson, GitPython, scipy,
bitarray and python-dotenv (colbert-ai itself without what else it asks for). What is written, k-means, codec, chunks,
removal and all, is ColBERT's doing; scores are those of its `colbert_score` on what its codec decompresses."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from colbert.index_updater import IndexUpdater
from colbert.indexing.collection_indexer import CollectionIndexer
from colbert.indexing.index_saver import IndexSaver
from colbert.infra.config import ColBERTConfig
from colbert.modeling.colbert import colbert_score
from colbert.search.index_storage import IndexScorer
from colbert.search.strided_tensor import StridedTensor
from collection import DIM, archive, documents, keep, queries, widened

torch.set_num_threads(1)
# They want a compiler, and are not needed here.
IndexScorer.loaded_extensions = StridedTensor.loaded_extensions = True


class Encoder:
    """A passage is called by its number; its tokens are followed by zeros up to ``dim``."""

    def __init__(self, dim):
        self.dim = dim

    def encode_passages(self, passages):
        all_tokens = documents(40, 0) + documents(12, 1)
        tokens = [torch.from_numpy(widened(all_tokens[int(passage)], self.dim)) for passage in passages]
        return torch.cat(tokens), [len(of) for of in tokens]


class Collection(list):
    """Passages in chunks of 15, or all in one."""

    size = 15

    def get_chunksize(self):
        return self.size

    def enumerate(self, rank):
        return enumerate(self)

    def enumerate_batches(self, rank):
        for chunk, first in enumerate(range(0, len(self), self.size)):
            yield chunk, first, self[first : first + self.size]


class Indexer(CollectionIndexer):
    """With that encoder."""

    def __init__(self, config, collection):
        self.verbose, self.config, self.rank, self.nranks, self.use_gpu = 1, config, 0, 1, False
        self.collection, self.encoder, self.saver = collection, Encoder(config.dim), IndexSaver(config)


def made(name, nbits):
    """Builds an index of the first 40 passages."""
    dim = max(DIM, 8 * nbits)  # ColBERT wants it to be a multiple
    config = ColBERTConfig(dim=dim, nbits=nbits, index_path=name, root="experiments", kmeans_niters=4, rank=0, nranks=1)
    folder = Path(config.index_path_)
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    Indexer(config, Collection(str(i) for i in range(40))).run([])
    return folder, config


def hits(folder):
    """Every passage that has tokens, by ColBERT's own decompression and score."""
    scorer = IndexScorer(str(folder), use_gpu=False)
    asked = torch.from_numpy(widened(queries(), scorer.codec.dim))
    found = [[] for _ in asked]
    first = 0
    for number, length in enumerate(scorer.doclens.tolist()):
        rows = slice(first, first + length)
        first += length
        if not length:
            continue
        packed = scorer.codec.Embeddings(scorer.embeddings.codes[rows], scorer.embeddings.residuals[rows])
        tokens = scorer.codec.decompress(packed)[None]
        for of, query in zip(found, asked, strict=True):
            mask = torch.ones(1, length, 1, dtype=torch.bool)
            of.append((number, float(colbert_score(query[None], tokens, mask))))
    return [sorted(of, key=lambda hit: -hit[1]) for of in found]


def changed(folder, config):
    """Twelve passages are added and three removed."""
    scorer = IndexScorer(str(folder), use_gpu=False)
    updater = IndexUpdater(config, SimpleNamespace(index=str(folder), ranker=scorer))
    updater.has_checkpoint, updater.encoder = True, Encoder(DIM)
    updater.curr_ivf = updater.curr_ivf[: updater.curr_ivf_lengths.sum()]  # padding of lists makes `add` fail
    updater.add([str(number) for number in range(40, 52)])
    updater.remove([0, 5, 25])
    updater.persist_to_disk()


def main():
    with tempfile.TemporaryDirectory() as room, archive("colbert") as into:
        os.chdir(room)  # so that no path of this machine is kept
        for nbits in (1, 2, 8, 4):
            folder, config = made(f"nbits-{nbits}", nbits)
            keep(into, folder.name, folder, hits(folder))
        Collection.size = 100  # to more chunks than one, 0.2.22 cannot add
        folder, config = made("one-chunk", 4)
        changed(folder, config)
        keep(into, "changed", folder, hits(folder))


if __name__ == "__main__":
    main()
