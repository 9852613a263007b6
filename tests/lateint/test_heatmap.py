import re

import numpy as np
import pytest

from lateint import heatmap
from lateint.encoders import Places


def test_contributions_add_up_to_the_score(index, queries):
    for query in queries:
        for document, score in index.search(query, 3):
            added = heatmap.contributions(index.similarity(query, document))
            assert added.sum(dtype=np.float64) == pytest.approx(score, rel=1e-5)
            assert np.flatnonzero(added).tolist() == np.unique(index.explain(query, document).tokens).tolist()


def test_words_are_coloured_by_what_they_add():
    spans = [[0, 3], [4, 8], [10, 14], [0, 0]]
    page = str(heatmap.text("red fish, blue", spans, [[0.1, 0.8, 0.2, 0], [0, 0.1, 0.4, 0]]))
    assert re.findall(r"rgba\([\d ,]+, ([\d.]+)\)\">(\w+)<", page) == [("0.75", "fish"), ("0.38", "blue")]
    assert re.sub("<[^>]*>", "", page) == "red fish, blue"
    row = heatmap.text("red fish, blue", spans, [0.5, -1, 0, 0])
    assert re.findall(r"\">(\w+)<", row._repr_html_()) == ["red"]


def test_a_text_that_is_markup_stays_text():
    page = str(heatmap.text("<script>alert(1)</script>", [[0, 8], [8, 16]], [[0.5, 0.2]]))
    assert "<script" not in page and "&lt;script&gt;" in page


def test_patches_are_drawn_over_their_places():
    images = pytest.importorskip("PIL.Image")
    image = images.new("RGB", (60, 40), "white")
    drawn = np.asarray(heatmap.picture(image, (2, 3), [0, 0, 0, 0, 0, 1.0, 0.3]))
    assert drawn.shape == (40, 60, 3)
    distance = np.abs(drawn.astype(int) - 255).sum(2)
    assert distance[22:, 42:].min() > 90
    assert distance[:10, :30].max() == 0
    assert image.getpixel((50, 30)) == (255, 255, 255)


SIMILARITY = [[0.9, 0.1], [0.5, 0.3], [0.5, 0.2], [0.1, 0.6], [0.5, 0.4]]  # of a word, and of 2 x 2 patches


def test_patches_of_a_query_are_drawn_where_they_are():
    images = pytest.importorskip("PIL.Image")
    image = images.new("RGB", (80, 40), "white")

    def coloured(places, similarity=SIMILARITY):
        drawn = np.asarray(heatmap.query_picture(image, places, similarity)).astype(int)
        assert drawn.shape == (40, 80, 3)
        return np.abs(drawn - 255).sum(2) > 60

    middle = coloured(Places([""] * 5, (2, 2), 1, (0.25, 0.0, 0.75, 1.0)))
    assert middle[30, 25] and not middle[:, :20].any() and not middle[:, 60:].any() and not middle[2, 22]
    beyond = coloured(Places([""] * 5, (2, 2), 1, (0.0, -0.5, 1.0, 1.5)))
    assert beyond[39, 5] and not beyond[0, 5]
    one = coloured(Places([""] * 5, (2, 2), 1), [0.9, 0.0, 0.0, 0.0, 0.7])
    assert one[35, 70] and not one[:10, :].any()


@pytest.mark.parametrize(
    ("places", "similarity", "message"),
    [
        (Places(["a"]), SIMILARITY, "places must have a grid, for a query without a picture has no patches"),
        (Places(["a"], (2, 3), 1), SIMILARITY, "grid must be of at most 4 patches, as there are tokens, got 2 x 3"),
        (Places(["a"], (2, 2), 1), [[np.nan]], "similarity must be finite numbers"),
    ],
)
def test_what_are_no_patches_of_a_query(places, similarity, message):
    images = pytest.importorskip("PIL.Image")
    with pytest.raises(ValueError, match=message):
        heatmap.query_picture(images.new("L", (4, 4)), places, similarity)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: heatmap.contributions([1, 2]), r"similarity must be \[Lq, Ld\]"),
        (lambda: heatmap.text("ab", [[0, 1]], [1.0, 2.0]), "spans must be one a token of the document, got 1 for 2"),
        (lambda: heatmap.text("ab", [[0, 3]], [1.0]), "spans must lie in the text, of 2 characters"),
        (lambda: heatmap.text("ab", [[0, 1]], [np.nan]), "similarity must be finite numbers"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_more_patches_than_tokens():
    images = pytest.importorskip("PIL.Image")
    with pytest.raises(ValueError, match="grid must be of at most 3 patches, as there are tokens, got 2 x 2"):
        heatmap.picture(images.new("L", (4, 4)), (2, 2), [1.0, 2, 3])


def test_an_empty_text():
    assert str(heatmap.text("", [[0, 0]], [1.0])).endswith("></div>")
