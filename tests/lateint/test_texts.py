"""Texts in: documents and queries that an encoder encodes, and which encoder an index accepts."""

import json

import numpy as np
import pytest
from letters import Letters

import lateint
from lateint import Index
from lateint.encoders import Encoder, adapted
from lateint.encoders.batches import BATCH

TEXTS = ["a red rose", "a blue sky over the sea", "green leaves", "a black cat", "white snow on grey stone"]


def test_texts_are_what_their_embeddings_are(tmp_path):
    encoder = Letters()
    assert isinstance(encoder, Encoder)
    index = Index.build(texts=TEXTS, encoder=encoder, path=tmp_path / "index", nbits=8, progress=False)
    plain = Index.build(encoder.encode_document(TEXTS), nbits=8, progress=False)
    found, expected = index.search("blue sea", k=3), plain.search(encoder.encode_query(["blue sea"])[0], k=3)
    assert found.ids[0] == 1
    assert found.ids.tolist() == expected.ids.tolist() and found.scores.tolist() == expected.scores.tolist()
    tokens = encoder.encode_query(["cat", "rose"])
    for one, other in zip(index.search(["cat", "rose"], k=2), index.search(tokens, k=2), strict=True):
        assert list(one) == list(other)
    assert list(index.rerank("cat", [0, 3])) == list(index.rerank(encoder.encode_query(["cat"])[0], [0, 3]))
    assert len(index.explain("black cat", 3)) == 3


def test_texts_are_kept_and_given_back(tmp_path):
    metadata = [{"words": len(text.split())} for text in TEXTS]
    index = Index.build(
        texts=iter(TEXTS), metadata=metadata, encoder=Letters(), path=tmp_path / "index", progress=False
    )
    assert [document.text for document in index.get(range(5))] == TEXTS
    hits = index.search("blue sky", k=2)
    assert hits.texts[0] == TEXTS[1] and hits.documents()[0].metadata == {"words": 6}
    index.update([0], texts=["a golden rose"])
    assert index.search("golden rose", k=1).texts == ["a golden rose"]
    with pytest.raises(ValueError, match="texts without doc_embs needs an encoder"):
        Index.open(tmp_path / "index").update([0], texts=["what its tokens would not say"])
    index.update([1], metadata=[{"words": 0}])
    assert index.get([1])[0].metadata == {"words": 0} and index.search("blue sky", k=1).ids[0] == 1


def test_texts_beside_embeddings_are_kept_and_not_encoded():
    index = Index.build(Letters().encode_document(TEXTS), texts=[text.upper() for text in TEXTS], progress=False)
    assert index.search(Letters().encode_query(["rose"])[0], k=1).texts == ["A RED ROSE"]


def test_documents_come_in_batches_from_a_generator(tmp_path):
    encoder, total = Letters(), 2 * BATCH + 3
    texts = (f"word{i} and word{i + 1}" for i in range(total))
    index = Index.build(texts=texts, encoder=encoder, path=tmp_path / "index", progress=False)
    assert encoder.calls == [BATCH, BATCH, 3] and len(index) == total
    assert index.search("word77", k=2).ids[0] in (76, 77) and index.get([total - 1])[0].text.startswith("word1026")


def test_with_a_codec_nothing_is_kept_of_what_was_encoded(tmp_path):
    encoder = Letters()
    codec = lateint.train_codec(encoder.encode_document(TEXTS), progress=False)
    index = Index.build(texts=iter(TEXTS), encoder=encoder, codec=codec, path=tmp_path / "index", progress=False)
    assert index.search("cat", k=1).ids[0] == 3 and index.get([4])[0].text == TEXTS[4]
    assert json.loads((tmp_path / "index" / "index.json").read_text())["encoder"]["name"] == "letters"


def test_texts_are_added_and_updated(tmp_path):
    index = Index.build(texts=TEXTS, encoder=Letters(), path=tmp_path / "index", nbits=8, progress=False)
    index.add(texts=["a purple plum tree"], ids=[50])
    index.update([0], texts=["an orange carrot"])
    assert index.search("purple plum tree", k=1).ids[0] == 50 and index.search("orange carrot", k=1).ids[0] == 0
    again = Index.open(tmp_path / "index", encoder=Letters())
    assert again.search("purple plum tree", k=1).ids[0] == 50


def test_the_encoder_is_kept_through_changes_and_checked(tmp_path):
    path = tmp_path / "index"
    index = Index.build(texts=TEXTS, encoder=Letters(), path=path, progress=False)
    index.delete([4])
    index.compact(full=True)
    index.rebuild(Letters().encode_document(TEXTS[:4]))
    kept = {"name": "letters", "settings": {"dim": 16, "longest": 64}}
    assert json.loads((path / "index.json").read_text())["encoder"] == kept
    index.save(tmp_path / "saved")
    other = Letters(longest=9)
    with pytest.raises(
        ValueError, match="encoder must have longest=64, with which this index was built by 'letters', got 9"
    ):
        Index.open(tmp_path / "saved", encoder=other)
    other.name = "words"
    with pytest.raises(ValueError, match="encoder must be 'letters', with which this index was built, got 'words'"):
        index.encoder = other
    assert index.encoder.name == "letters"


def test_an_index_of_unknown_origin_takes_any_encoder(tmp_path):
    index = Index.build(Letters().encode_document(TEXTS), tmp_path / "index", progress=False)
    index.encoder = Letters()
    assert index.search("rose", k=1).ids[0] == 0
    index.encoder = None
    with pytest.raises(ValueError, match="opened without an encoder: give encoder=, see"):
        index.search("rose")


def test_text_without_the_encoder_says_which_one(tmp_path):
    Index.build(texts=TEXTS, encoder=Letters(), path=tmp_path / "index", progress=False)
    with pytest.raises(ValueError, match="opened without its encoder 'letters': give encoder="):
        Index.open(tmp_path / "index").search("rose")


def test_search_in_one_line(tmp_path):
    index = Index.build(texts=TEXTS, encoder=Letters(), path=tmp_path / "index", progress=False)
    assert lateint.search("blue sky", index=tmp_path / "index", encoder=Letters())[0].id == 1
    assert lateint.search("blue sky", index=index)[0].id == lateint.search("blue sky")[0].id == 1
    with pytest.raises(ValueError, match="encoder goes with the path of an index"):
        lateint.search("blue sky", index=index, encoder=Letters())


def test_merging_keeps_the_encoder_or_refuses(tmp_path):
    encoder = Letters()
    codec = lateint.train_codec(encoder.encode_document(TEXTS), progress=False)
    settings = {"codec": codec, "progress": False}
    one = Index.build(texts=TEXTS, encoder=encoder, ids=list("abcde"), path=tmp_path / "1", **settings)
    same = Index.build(texts=TEXTS, encoder=encoder, ids=list("fghij"), path=tmp_path / "2", **settings)
    plain = Index.build(encoder.encode_document(TEXTS), ids=list("klmno"), path=tmp_path / "3", **settings)
    merged = Index.merge([plain, one, same], tmp_path / "merged")
    with pytest.raises(ValueError, match="letters"):
        merged.encoder = type("Other", (Letters,), {"name": "other"})()
    other = Index.build(texts=TEXTS, encoder=Letters(longest=3), ids=list("pqrst"), path=tmp_path / "4", **settings)
    with pytest.raises(ValueError, match=r"parts must have one encoder, but that of part 1 .* 'longest': 3"):
        Index.merge([one, other], tmp_path / "refused")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": TEXTS}, "texts without doc_embs needs an encoder: pass encoder="),
        ({"texts": "one text", "encoder": Letters()}, "texts must be a list or an iterable of texts, got str"),
        ({"texts": ["a", None], "encoder": Letters()}, "texts must hold texts, but text 1 is None"),
        ({}, "doc_embs must be given, or texts with an encoder"),
        ({"texts": TEXTS, "encoder": 3}, "encoder must have encode_query and encode_document"),
        ({"texts": [], "encoder": Letters()}, "doc_embs must hold at least one token"),
        ({"texts": ["a", ""], "encoder": Letters()}, "document 1 has no tokens"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Index.build(**arguments, progress=False)


def test_resume_wants_embeddings(tmp_path):
    with pytest.raises(ValueError, match="resume needs doc_embs"):
        Index.build(texts=TEXTS, encoder=Letters(), path=tmp_path / "index", resume=True, progress=False)


def test_an_encoder_that_gives_too_few_is_refused():
    encoder = Letters()
    encoder.encode_document = lambda texts: []
    with pytest.raises(
        ValueError, match=r"encoder.encode_document must give one \[L, dim\] for each text, got 0 for 5"
    ):
        Index.build(texts=TEXTS, encoder=encoder, progress=False)
    index = Index.build(texts=TEXTS, encoder=Letters(), progress=False)
    with pytest.raises(TypeError, match="query 1 is int"):
        index.search(["rose", 3])
    with pytest.raises(ValueError, match="mask goes with tokens, and Q is text"):
        index.search("rose", mask=[1])


def test_what_only_encodes_encodes_both_alike():
    class Plain:
        def encode(self, texts):
            return Letters().encode_document(texts)

    encoder = adapted(Plain())
    assert np.array_equal(encoder.encode_query(["a b"])[0], encoder.encode_document(["a b"])[0])
    assert encoder.name.endswith("Plain") and encoder.settings == {}


def test_a_damaged_description_is_refused(tmp_path):
    Index.build(texts=TEXTS, encoder=Letters(), path=tmp_path / "index", progress=False)
    manifest = json.loads((tmp_path / "index" / "index.json").read_text())
    (tmp_path / "index" / "index.json").write_text(json.dumps({**manifest, "encoder": {"name": 3, "settings": {}}}))
    with pytest.raises(lateint.FormatError, match="encoder cannot be"):
        Index.open(tmp_path / "index")
