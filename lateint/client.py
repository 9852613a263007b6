"""Indexes that a server has, with the methods of `lateint.Index`; needs httpx (``pip install "lateint[client]"``)."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from lateint.documents import Document
from lateint.encoders.batches import is_one
from lateint.fields.values import as_json, from_json
from lateint.ids import UnknownIdError
from lateint.retrieval.hits import Explanation, Hits
from lateint.retrieval.selection import by_query
from lateint.text import vectors
from lateint_kernels import Ragged, as_array, to_float32

BINARY = "application/msgpack"


class ServerError(RuntimeError):
    """A server that does not do what it was asked; ``status`` is that of HTTP.

    429 (too much waits) and 503 (another process writes) pass: ``retry_after`` says after how many seconds, if known.
    """

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{detail} (status {status})")
        self.status, self.retry_after = status, retry_after


class RemoteIndex:
    """An index of a server.

    Args:
        url: of the index, such as ``"http://127.0.0.1:8080/v1/indexes/passages"``.
        key: where the server asks for one.
        timeout: seconds to wait for an answer.

    Any number of threads may use one. Its methods take and return what those of `lateint.Index` do, and raise the same
    for input that is wrong; besides `ServerError`, what httpx raises when a server cannot be reached.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 120.0) -> None:
        try:
            import httpx
        except ImportError:
            raise ImportError("lateint.client needs httpx: pip install 'lateint[client]'") from None
        self.url = url.rstrip("/")
        self._packed = find_spec("msgspec") is not None
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = httpx.Client(headers=headers, timeout=timeout)

    def search(
        self,
        Q: Any,
        k: int = 5,
        *,
        text: str | None = None,
        sparse: Any = None,
        alpha: float | None = None,
        fusion: str | None = None,
        rerank: int | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        exhaustive: bool = False,
        recall: float | None = None,
        subset: Iterable[Any] | None = None,
        filter: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """The k best documents for each query, see `Index.search`; text and sparse go with one query.

        The picture of a query may be one of Pillow, which is sent as PNG, or the bytes of a file.

        For a batch, ``subset`` may be a list of ids for each query; different ones are asked for one after the other.
        """
        how: dict[str, Any] = {
            "k": k,
            "nprobe": nprobe,
            "candidates": candidates,
            "exhaustive": exhaustive,
            "recall": recall,
        }
        how |= _condition(filter, params)
        how = {name: value for name, value in how.items() if value is not None}
        vector = None if sparse is None else _vector(sparse, "sparse")
        mixing = {"text": text, "sparse": vector, "alpha": alpha, "fusion": fusion, "rerank": rerank}
        mixing = {name: value for name, value in mixing.items() if value is not None}
        queries = None if Q is None else _matrices(Q)
        if queries is None:
            how |= mixing if Q is None else {"query": self._query(Q), **mixing}
            how |= {} if subset is None else {"subset": _ids(subset)}
            return _hits(self._ask("POST", "/search", how)["hits"], self.get)
        if mixing:
            raise ValueError(f"{next(iter(mixing))} goes with one query, got a batch")
        if not queries:
            return []
        parts = None if subset is None else by_query(subset, len(queries))
        found: list[Any] = [None] * len(queries)
        for part, numbers in [(subset, list(range(len(queries))))] if parts is None else parts:
            chosen = {} if part is None else {"subset": _ids(part)}
            message = {"queries": [self._query(queries[number]) for number in numbers], **how, **chosen}
            answer = self._ask("POST", "/search/batch", message)
            for number, hits in zip(numbers, answer["results"], strict=True):
                found[number] = _hits(hits, self.get)
        return found

    def rerank(
        self,
        Q: Any,
        ids: Iterable[Any],
        k: int | None = None,
        *,
        filter: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> Hits:
        """Scores of the documents ``ids``, best first, see `Index.rerank`."""
        message = {"query": self._query(Q), "ids": _ids(ids), **({} if k is None else {"k": k})}
        message |= _condition(filter, params)
        return _hits(self._ask("POST", "/rerank", message)["hits"], self.get)

    def explain(self, Q: Any, id: Any) -> Explanation:
        """Which token of document ``id`` each query token matches best, see `Index.explain`."""
        answer = self._ask("POST", "/explain", {"query": self._query(Q), "id": _plain(id)})
        return Explanation(np.array(answer["tokens"], np.int64), np.array(answer["scores"], np.float32))

    def similarity(self, Q: Any, id: Any) -> NDArray[np.float32]:
        """Inner products ``[Lq, Ld]`` of all tokens of a query with all of document ``id``."""
        return _matrix(self._ask("POST", "/explain", {"query": self._query(Q), "id": _plain(id)})["similarity"])

    def get(self, ids: Iterable[Any], fields: Iterable[str] | None = None) -> list[Document]:
        """Texts and metadata of documents, in the order of ``ids``, see `Index.get`."""
        if not (names := _ids(ids)):
            return []
        message = {"ids": names, **({} if fields is None else {"fields": list(fields)})}
        found = self._ask("POST", "/documents/get", message)["documents"]
        return [Document(one["id"], one["text"], from_json(json.dumps(one["metadata"]))) for one in found]

    def has(self, ids: Iterable[Any]) -> NDArray[np.bool_]:
        """``[n]``: which of these ids a document has."""
        names = _ids(ids)
        return np.array(self._ask("POST", "/documents/has", {"ids": names})["there"] if names else [], bool)

    def add(
        self,
        doc_embs: Any = None,
        *,
        ids: Any = None,
        texts: Iterable[str | None] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
        sparse: Any = None,
        on_duplicate: str = "raise",
    ) -> int:
        """Appends documents; when this returns, they cannot be lost. Returns the generation of the index.

        Args:
            doc_embs: a list of ``[Ld, dim]`` or a `Ragged`; None: the server's encoder makes them of ``texts``.
            ids, texts, metadata, sparse: as in `Index.add`.
            on_duplicate: ``"raise"`` or ``"replace"``.
        """
        if on_duplicate not in ("raise", "replace"):
            raise ValueError(f"on_duplicate must be raise or replace, got {on_duplicate!r}")
        texts = None if texts is None else list(texts)
        documents: list[dict[str, Any]] = [{} for _ in texts or ()]
        if doc_embs is not None:
            documents = [{"embedding": self._array(tokens)} for tokens in doc_embs]
        _put(documents, "id", _ids(ids), "ids")
        _put(documents, "text", texts, "texts")
        _put(documents, "metadata", metadata, "metadata")
        _put(documents, "sparse", _vectors(sparse), "sparse")
        if not documents:
            return self.generation
        return self._changed("PUT" if on_duplicate == "replace" else "POST", "/documents", {"documents": documents})

    def update(
        self,
        ids: Iterable[Any],
        *,
        texts: Iterable[str | None] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
        sparse: Any = None,
    ) -> int:
        """Changes what documents carry, see `Index.update`; `add` replaces embeddings. Returns the generation."""
        documents: list[dict[str, Any]] = [{"id": name} for name in _ids(ids) or []]
        _put(documents, "text", texts, "texts")
        _put(documents, "metadata", metadata, "metadata")
        _put(documents, "sparse", _vectors(sparse), "sparse")
        return self._changed("PATCH", "/documents", {"documents": documents}) if documents else self.generation

    def count(self, filter: Any, params: Mapping[str, Any] | None = None) -> int:
        """For how many documents a condition holds, see `Index.count`."""
        counted: int = self._ask("POST", "/count", _condition(filter, params))["documents"]
        return counted

    def delete(
        self, ids: Iterable[Any] | None = None, *, filter: Any = None, params: Mapping[str, Any] | None = None
    ) -> int:
        """Deletes documents, of ids or for which a condition holds; returns how many, see `Index.delete`."""
        if filter is not None:
            message = _condition(filter, params) | ({} if ids is None else {"ids": _ids(ids)})
            deleted: int = self._ask("DELETE", "/documents", message)["changed"]
            return deleted
        names = _ids(ids)
        changed: int = self._ask("DELETE", "/documents", {"ids": names})["changed"] if names else 0
        return changed

    def compact(self, *, full: bool = False) -> int:
        """Joins small segments, see `Index.compact`. Returns the generation of the index."""
        return self._changed("POST", "/compact", {"full": full})

    def stats(self) -> dict[str, Any]:
        """Sizes and state of the index."""
        return self._ask("GET", "")

    @property
    def generation(self) -> int:
        """How many commits there were between the build and now."""
        generation: int = self.stats()["generation"]
        return generation

    @property
    def dim(self) -> int:
        """Components of a token."""
        dim: int = self.stats()["dim"]
        return dim

    def __len__(self) -> int:
        documents: int = self.stats()["documents"]
        return documents

    def __repr__(self) -> str:
        return f"RemoteIndex({self.url!r})"

    def __enter__(self) -> RemoteIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def _changed(self, method: str, path: str, message: Mapping[str, Any]) -> int:
        generation: int = self._ask(method, path, message)["generation"]
        return generation

    def _query(self, Q: Any) -> Any:
        if isinstance(Q, str):
            return Q
        if not _is_one(Q):
            return self._array(Q)
        text, picture = Q
        data = picture if isinstance(picture, bytes) else _png(picture)
        return {"text": text, "picture": data if self._packed else base64.b64encode(data).decode("ascii")}

    def _array(self, Q: Any) -> dict[str, Any]:
        array = as_array(Q, "Q")
        if array.ndim != 2:
            raise ValueError(f"Q must be [L, dim], got {array.shape}")
        kind = "float16" if array.dtype == np.float16 else "float32"
        tokens = array if kind == "float16" else to_float32(array)
        data = np.ascontiguousarray(tokens, "<f2" if kind == "float16" else "<f4").tobytes()
        named = {"data": data} if self._packed else {"base64": base64.b64encode(data).decode("ascii")}
        return {**named, "dtype": kind, "shape": list(array.shape)}

    def _ask(self, method: str, path: str, message: Mapping[str, Any] | None = None) -> dict[str, Any]:
        url = self.url + quote(path)
        if message is None:
            response = self._http.request(method, url)
        elif self._packed:
            import msgspec

            packed = msgspec.msgpack.encode(message)
            response = self._http.request(
                method, url, content=packed, headers={"content-type": BINARY, "accept": BINARY}
            )
        else:
            response = self._http.request(method, url, json=message)
        if response.status_code != 200:
            raise _error(response)
        if response.headers.get("content-type", "").startswith(BINARY):
            import msgspec

            return dict(msgspec.msgpack.decode(response.content))
        return dict(response.json())


def _vector(given: Any, what: str) -> dict[str, float] | None:
    vector = vectors.read(given, what, largest=vectors.LARGEST_QUERY)
    return None if vector is None else vectors.plain(vector)


def _vectors(sparse: Any) -> list[dict[str, float] | None] | None:
    if sparse is None:
        return None
    rows = vectors.Matrix.of(sparse)
    return [_vector(one, f"sparse of document {i}") for i, one in enumerate(sparse if rows is None else rows)]


def _error(response: Any) -> Exception:
    """What a method raises for an answer that is none."""
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200] or "no answer"
    if response.status_code == 404 and " holds " in detail:
        return UnknownIdError(detail)
    if response.status_code == 422:
        return ValueError(detail)
    wait = response.headers.get("retry-after", "")
    return ServerError(response.status_code, detail, float(wait) if wait.isdigit() else None)


def _matrices(Q: Any) -> Sequence[Any] | None:
    """The queries of a batch; None: it is a single one."""
    if isinstance(Q, Ragged):
        return list(Q)
    if _is_one(Q):
        return None
    if isinstance(Q, (list, tuple)) and (not Q or _is_one(Q[0]) or getattr(Q[0], "ndim", None) == 2):
        return Q
    array = as_array(Q, "Q")
    return list(array) if array.ndim == 3 else None


def _is_one(Q: Any) -> bool:
    """Whether it is a text, or a text with a picture."""
    return is_one(Q) or (isinstance(Q, tuple) and list(map(type, Q)) == [str, bytes])


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "PNG")
    return file.getvalue()


def _condition(filter: Any, params: Mapping[str, Any] | None) -> dict[str, Any]:
    given = {"filter": filter, "params": params}
    return {name: as_json(value) for name, value in given.items() if value is not None}


def _put(documents: list[dict[str, Any]], name: str, values: Iterable[Any] | None, argument: str) -> None:
    """Adds one value to each document."""
    if values is None:
        return
    given = list(values)
    if len(given) != len(documents):
        raise ValueError(f"{argument} must be one a document, got {len(given)} for {len(documents)} documents")
    for document, value in zip(documents, given, strict=True):
        document[name] = as_json(value)


def _ids(ids: Iterable[Any] | None) -> list[Any] | None:
    return None if ids is None else [_plain(id) for id in ids]


def _plain(id: Any) -> Any:
    return id.item() if isinstance(id, np.generic) else id


def _hits(found: list[dict[str, Any]], get: Any) -> Hits:
    ids = [hit["id"] for hit in found]
    kind: Any = object if ids and isinstance(ids[0], str) else np.int64
    return Hits(np.array(ids, kind), np.array([hit["score"] for hit in found], np.float32), read=partial(get, ids))


def _matrix(message: Mapping[str, Any]) -> NDArray[np.float32]:
    data = message["data"] if "data" in message else base64.b64decode(message["base64"])
    array: NDArray[np.float32] = np.frombuffer(data, "<f4").reshape(message["shape"])
    return array
