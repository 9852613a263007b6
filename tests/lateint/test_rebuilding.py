"""How well a codec fits what is there now, and one that is learned anew."""

import numpy as np
import pytest
from histories import answers, documents, numbered

from lateint import Index
from lateint.changing.rebuilding import Decoded

pytestmark = pytest.mark.filterwarnings("ignore:.* what codes can hold:UserWarning")


def test_drift():
    rng = np.random.default_rng(0)
    index = Index.build(documents(rng, 200), text_search=True, progress=False, ncentroids=20)
    assert index.drift().residual_ratio == pytest.approx(1, abs=0.1)
    assert "nothing is to be done" in index.drift().advice
    far = [5 * tokens for tokens in documents(rng, 200)]
    with pytest.warns(UserWarning, match="too small"):
        index.add(far)
    drift = index.drift()
    assert drift.residual_ratio > 1.5 and "rebuild" in drift.advice and drift.growth == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("from_codes", [True, False])
def test_rebuild(living, from_codes):
    live = numbered()
    living.delete([3, 5])
    living.add(documents(np.random.default_rng(1), 40))
    decoded = Decoded(living._snapshot.state, living.codec)  # all at once, as a rebuild does it: the same last bits
    tokens = np.concatenate([*decoded.chunks(1 << 15)])
    live = dict(zip(living.ids.tolist(), np.split(tokens, np.cumsum(decoded.lengths)[:-1]), strict=True))
    before = living.codec
    report = living.rebuild(None if from_codes else list(live.values()), ncentroids=9)
    assert living.ids.tolist() == list(live) and living.codec.crc32 != before.crc32
    assert report.from_codes == from_codes and report.centroids == (5, 9) and 0 < report.error < 0.2
    expect = Index.build(list(live.values()), ids=list(live), ncentroids=9, text_search=True, progress=False)
    assert answers(living) == answers(expect)
    living.delete([7])
    if living.path is not None:
        assert answers(Index.open(living.path)) == answers(living)
        assert Index.verify(living.path).problems == []
        assert not (living.path / "mean.npy").exists()


def test_rebuild_of_other_documents(living):
    with pytest.raises(ValueError, match="source must hold the 20 documents of the index, got 3"):
        living.rebuild(documents(np.random.default_rng(0), 3))
