"""The rules of `maxsim` and `maxsim_pairs` that arrays and tensors share, each with its sentence."""

Shape = tuple[int, ...]


def check_dims(queries: int, documents: int) -> None:
    """Of tokens."""
    if queries != documents:
        raise ValueError(f"queries and documents must share dim, got {queries} and {documents}")


def shape_of_scores(queries: Shape, documents: Shape) -> Shape:
    """From the shapes of the batches: ``()`` for one query, ``[n]``, or ``[Nq, K]`` for candidates."""
    if len(documents) < 2:
        return (*queries, *documents)
    if queries != documents[:1]:
        found = f"{queries[0]} queries" if queries else "one query without a batch axis"
        raise ValueError(
            f"documents [Nq, K, Ld, dim] need queries [Nq, Lq, dim], got {documents[0]} sets of candidates for {found}"
        )
    return documents


def check_indices(query_index: object, document_index: object, queries: int, documents: int) -> None:
    """Whether pairs are said, or follow from the order of as many queries as documents."""
    if (query_index is None) != (document_index is None):
        raise ValueError("query_index and document_index must be given together or not at all")
    if query_index is None and queries != documents:
        raise ValueError(f"pairs without an index need as many queries as documents, got {queries}, {documents}")


def check_pairs(first: int, second: int) -> None:
    """How many entries two indices have."""
    if first != second:
        raise ValueError(f"query_index and document_index must have one length, got {first} and {second}")


def out_of_range(name: str, size: int, what: str) -> ValueError:
    """For an index."""
    return ValueError(f"{name} must be from 0 to {size - 1}, for there are {size} {what}")


def check_per_token(name: str, shape: Shape, grid: Shape) -> None:
    """Of a mask or weights, for tokens of a batch of shape ``grid``."""
    if tuple(shape) != grid:
        raise ValueError(f"{name} must be {list(grid)}, one number for each token, got {list(shape)}")


def check_weights(floating: bool, dtype: object) -> None:
    """Of query tokens."""
    if not floating:
        raise TypeError(f"query_weights must be floats, got {dtype}")


def nothing_left(what: str, number: int) -> ValueError:
    """For a mask."""
    return ValueError(f"{what}_mask must leave every {what} a token, but {what} {number} has none left")
