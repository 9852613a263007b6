"""What requests and answers hold; the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from lateint_server.arrays import Embedding, Query

Id = Annotated[StrictInt, Field(ge=-(1 << 63), lt=1 << 63)] | Annotated[StrictStr, Field(min_length=1)]
Count = Annotated[StrictInt, Field(ge=1, lt=1 << 31)]
Matrix = Annotated[
    Any,
    WithJsonSchema(
        {
            "title": "Matrix",
            "description": "float32, little-endian and row by row; in MessagePack, `data` holds the bytes themselves",
            "type": "object",
            "required": ["base64", "dtype", "shape"],
            "properties": {
                "base64": {"type": "string", "contentEncoding": "base64"},
                "dtype": {"const": "float32"},
                "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            },
        }
    ),
]

Spans = Annotated[
    list[list[int]],
    WithJsonSchema(
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}}
    ),
]
Metadata = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "description": 'dates as {"$date": "2024-01-31"}'})
]


def _filter(value: Any) -> Any:
    if not isinstance(value, (str, dict)):
        raise ValueError(f"must be a string or an object, got {type(value).__name__}")
    return value


Filter = Annotated[
    Any,
    PlainValidator(_filter),
    WithJsonSchema(
        {
            "title": "Filter",
            "description": "A condition on metadata: an object, or a string in SQL, as `Index.search` takes them.",
            "anyOf": [{"type": "object"}, {"type": "string"}],
        }
    ),
]
Sparse = Annotated[
    dict[StrictStr, StrictFloat | StrictInt], Field(description="a sparse vector: terms, and a weight from 0 for each")
]
Params = Annotated[dict[str, Any], Field(description="values for the names that a filter in SQL has after a colon")]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HowToSearch(Message):
    """What a search and a batch of them have in common."""

    k: Count = Field(10, description="how many hits")
    nprobe: Count | None = Field(None, description="centroids that each query token looks into")
    candidates: Count | None = Field(None, description="documents that are scored exactly")
    exhaustive: StrictBool = Field(False, description="score every document")
    recall: StrictFloat | None = Field(
        None, gt=0, lt=1, description="to reach, where the index was calibrated, instead of settings"
    )
    subset: list[Id] | None = Field(None, description="ids to choose from")
    filter: Filter | None = None
    params: Params | None = None
    fields: list[StrictStr] = Field(
        [], description="of metadata, to give with each hit; `text` for the text, `*` for all"
    )
    explain: StrictBool = Field(False, description="give the similarity of all pairs of tokens with each hit")
    timeout_ms: Count | None = Field(None, description="answer 504 after so long; the server's own limit if left out")


class Search(HowToSearch):
    query: Query | None = Field(None, description="left out where `text` or `sparse` alone counts")
    text: StrictStr | None = Field(None, min_length=1, description="words to find, by BM25")
    sparse: Sparse | None = Field(None, min_length=1, description="instead of text: by inner products")
    alpha: StrictFloat | StrictInt | None = Field(
        None, ge=0, le=1, description="how much the query counts beside text or sparse"
    )
    fusion: Literal["relative", "rrf"] | None = Field(None, description="how both become one score")
    rerank: Count | None = Field(None, description="order so many of the best by text or sparse by the query instead")


class SearchBatch(HowToSearch):
    queries: list[Query] = Field(min_length=1)


class QueryPicture(Message):
    """Where the patches of a query's picture are."""

    grid: Annotated[list[int], Field(min_length=2, max_length=2, description="rows and columns of patches")]
    first: int = Field(description="the query token of the first patch; the others follow it, row by row")
    box: Annotated[list[float], Field(min_length=4, max_length=4)] = Field(
        description="left, top, right and bottom of the grid, where the picture lies from 0 to 1"
    )


class Hit(Message):
    id: Id
    score: float
    text: str | None = Field(None, description="where it was asked for")
    metadata: Metadata | None = Field(None, description="where they were asked for")
    similarity: Matrix | None = Field(None, description="[query tokens, document tokens], where it was asked for")
    spans: Spans | None = Field(None, description="where tokens begin and end in the text, where that is known")


class Hits(Message):
    hits: list[Hit]
    generation: int = Field(description="of the index that was searched")
    query_tokens: list[str] | None = Field(None, description="with explanations of a text, where the encoder tells")
    query_picture: QueryPicture | None = Field(None, description="likewise, of a query with a picture")


class HitsBatch(Message):
    results: list[list[Hit]]
    generation: int


class Document(Message):
    """One document."""

    id: Id | None = Field(None, description="left out for all of a request, or for none")
    embedding: Embedding | None = Field(
        None, description="left out for all of a request, or for none: the encoder of the index makes it of the text"
    )
    text: StrictStr | None = None
    metadata: Metadata | None = None
    sparse: Sparse | None = None


class Documents(Message):
    documents: list[Document] = Field(min_length=1)


class Besides(Message):
    """What a document has besides its embedding."""

    id: Id
    text: StrictStr | None = Field(None, description="null takes it away; left out, it stays")
    metadata: Metadata | None = Field(None, description="null takes them away; left out, they stay")
    sparse: Sparse | None = Field(None, description="null takes it away; left out, it stays")


class BesidesOfDocuments(Message):
    documents: list[Besides] = Field(min_length=1)


class Which(Message):
    """Documents: either those of ids, or those for which a condition holds."""

    ids: list[Id] | None = Field(None, min_length=1)
    filter: Filter | None = None
    params: Params | None = None


class Condition(Message):
    filter: Filter
    params: Params | None = None


class Counted(Message):
    documents: int
    generation: int


class Rerank(Message):
    query: Query
    ids: list[Id] = Field(min_length=1)
    filter: Filter | None = None
    params: Params | None = None
    k: Count | None = None


class Explain(Message):
    query: Query
    id: Id


class Explanation(Message):
    tokens: list[int] = Field(description="the document token that each query token matches best")
    scores: list[float] = Field(description="their inner products; the score of the document is the sum")
    similarity: Matrix = Field(description="[query tokens, document tokens]")
    generation: int
    query_tokens: list[str] | None = Field(None, description="of a text, where the encoder tells")
    query_picture: QueryPicture | None = Field(None, description="of a query with a picture, likewise")


class Compact(Message):
    full: StrictBool = Field(False, description="into one segment")


class Written(Message):
    """A write that cannot be lost any more."""

    generation: int
    documents: int = Field(description="in the index now")
    changed: int = Field(description="documents that were added, replaced or deleted")


class Wanted(Message):
    ids: list[Id] = Field(min_length=1)
    fields: list[StrictStr] = Field(["*"], description="of metadata; `text` for the text, `*` for all")


class Stored(Message):
    id: Id
    text: str | None
    metadata: Metadata


class StoredDocuments(Message):
    documents: list[Stored]
    generation: int


class Ids(Message):
    ids: list[Id] = Field(min_length=1)


class There(Message):
    there: list[bool] = Field(description="of each id, whether a document has it")
    generation: int


class StoredDocument(Stored):
    tokens: int
    generation: int


class IndexInfo(Message):
    name: str
    generation: int
    documents: int
    tokens: int
    dim: int
    nbits: int
    text_search: bool = Field(description="whether documents are found by their words")
    encoder: bool = Field(description="whether queries and documents may be texts")
    query_pictures: bool = Field(description="whether queries may have a picture")


class IndexList(Message):
    indexes: list[IndexInfo]


class Stats(IndexInfo):
    codec: int = Field(description="its checksum: indexes with the same one can be searched as shards of one")
    ids: str = Field(description="int64 or string")
    centroids: int
    cells: int
    segments: int
    bytes: int
    bytes_per_token: dict[str, float]
    residual_ratio: float | None = Field(description="see docs/living.md")
    growth: float | None
    advice: str | None


class State(Message):
    status: str


class Problem(Message):
    detail: str = Field(description="what is wrong, in a sentence")
