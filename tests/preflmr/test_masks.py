import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from preflmr.model import masks  # noqa: E402


def test_padding_and_skipped_tokens_are_left_out():
    ids = torch.tensor([[5, 1, 7, 0, 0]])
    assert masks.kept(ids, 0, None).tolist() == [[True, True, True, False, False]]
    assert masks.kept(ids, 0, torch.tensor([7, 9])).tolist() == [[True, True, False, False, False]]


def test_instruction_ends_with_the_first_separator():
    ids = torch.tensor([[5, 1, 7, 9, 8, 9, 6], [5, 1, 9, 7, 7, 7, 7], [5, 1, 7, 7, 7, 7, 7], [5, 9, 7, 7, 7, 7, 7]])
    keep, without = masks.after_instruction(ids, 9)
    assert keep.int().tolist() == [[1, 1, 0, 0, 1, 1, 1], [1, 1, 0, 1, 1, 1, 1], [1] * 7, [1] * 7]
    assert without.tolist() == [False, False, True, True]


def test_flags_are_one_for_each():
    mask = torch.ones(2, 2, dtype=torch.bool)
    assert masks.flagged(mask, [True, False], "flags").tolist() == [[True, True], [False, False]]
    with pytest.raises(ValueError, match="flags must have a bool for each of 2, got 3"):
        masks.flagged(mask, [True] * 3, "flags")
