"""Changes that are refused leave an index as it was; transactions, duplicates and ids that nobody gave."""

import numpy as np
import pytest
from histories import QUERIES, answers, documents, expected

from lateint import Index, UnknownIdError

pytestmark = pytest.mark.filterwarnings("ignore:.* what codes can hold:UserWarning")


def unchanged(index, call, kind, match):
    before, generation = answers(index), index.generation
    with pytest.raises(kind, match=match):
        call()
    assert answers(index) == before and index.generation == generation


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda i, d: i.add(d, ids=[3, 100]), ValueError, "ids must be new, but 3 is in the index already"),
        (lambda i, d: i.add(d, ids=[100, 100]), ValueError, "ids must differ, but 100 occurs more than once"),
        (lambda i, d: i.add(d, ids=["a", "b"]), TypeError, "ids must be int64 as those of this index are, got strings"),
        (lambda i, d: i.add(d, ids=[100]), ValueError, "got 1 ids for 2 documents"),
        (lambda i, d: i.add(d, on_duplicate="no"), ValueError, "on_duplicate must be one of raise, replace, skip"),
        (lambda i, d: i.add([x[:, :4] for x in d]), ValueError, "doc_embs must have dim 8 as the index has, got 4"),
        (lambda i, d: i.add([x * np.nan for x in d]), ValueError, "must be finite"),
        (lambda i, d: i.add([]), ValueError, "at least one token"),
        (lambda i, d: i.update([3, 99], d), UnknownIdError, "ids holds 99, which is no document of this index"),
        (lambda i, d: i.update([3], d), ValueError, "got 1 ids for 2 documents"),
        (lambda i, d: i.delete([3, 99]), UnknownIdError, "ids holds 99"),
        (lambda i, d: i.delete(["a"]), UnknownIdError, "ids holds 'a'"),
        (lambda i, d: i.delete(3), TypeError, "ids must be a list of ids, got int 3"),
    ],
)
def test_bad_input_changes_nothing(living, call, kind, match):
    unchanged(living, lambda: call(living, documents(np.random.default_rng(1), 2)), kind, match)


def test_a_transaction_is_all_or_nothing(living):
    def call():
        with living.transaction():
            living.delete([1])
            living.add(documents(np.random.default_rng(1), 2))
            assert len(living) == 20  # searches find what is committed
            living.delete([1])

    unchanged(living, call, UnknownIdError, "ids holds 1,")
    with living.transaction():
        living.delete([1])
        living.add(documents(np.random.default_rng(1), 2), ids=[1, 77])
    assert living.generation == 1 and len(living) == 21 and living.ids[-2:].tolist() == [1, 77]


def test_a_transaction_in_which_nothing_happens_is_no_commit(living):
    with living.transaction():
        pass
    living.compact()
    assert living.delete([]) == 0
    assert living.generation == 0


def test_duplicates(living):
    new = documents(np.random.default_rng(1), 3)
    living.add(new, ids=[3, 50, 4], on_duplicate="skip")
    assert living.ids.tolist() == [*range(20), 50]
    living.add(new, ids=[3, 51, 4], on_duplicate="replace")
    assert living.ids.tolist() == [0, 1, 2, *range(5, 20), 50, 3, 51, 4]
    living.add(new[:1], ids=[3], on_duplicate="skip")
    assert living.generation == 2


def test_ids_that_nobody_gave_follow_the_largest_there_ever_was(living):
    living.add(documents(np.random.default_rng(1), 2))
    living.delete([21])
    living.compact(full=True)
    living.add(documents(np.random.default_rng(1), 1))
    assert living.ids[-2:].tolist() == [20, 22]


def test_strings_must_be_given():
    index = Index.build(documents(np.random.default_rng(0), 3), ids=["a", "b", "c"], text_search=True, progress=False)
    with pytest.raises(ValueError, match="ids must be given, for those of this index are strings"):
        index.add(documents(np.random.default_rng(0), 1))
    with pytest.raises(TypeError, match="ids must be strings as those of this index are, got int64"):
        index.add(documents(np.random.default_rng(0), 1), ids=[1])


def test_all_deleted_and_then_some_added(living):
    living.delete(living.ids)
    assert len(living) == 0 and all(len(hits) == 0 for hits in living.search(QUERIES, 3))
    living.compact()
    assert living.stats()["segments"] == 0 and len(living.search(QUERIES[0], 3, exhaustive=True)) == 0
    live = {7: documents(np.random.default_rng(1), 1)[0]}
    living.add(list(live.values()), ids=list(live))
    assert answers(living) == expected(live, living.codec)
