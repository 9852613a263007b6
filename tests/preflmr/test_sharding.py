"""What is shared out over devices; that training with it is training without it is a case of test_train."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn  # noqa: E402

from preflmr.training import sharding  # noqa: E402


def test_layers_are_members_of_lists_and_of_lists_inside_lists_the_inner_ones(make_tiny):
    inner = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))])
    module = nn.ModuleDict(
        {"blocks": nn.ModuleList([nn.ModuleDict({"parts": inner}), nn.Linear(2, 2)]), "head": nn.Linear(2, 2)}
    )
    assert sharding.layers(module) == [module["blocks"][1], *inner]
    names = [type(one).__name__ for one in sharding.layers(make_tiny())]
    assert names.count("BertLayer") == 2 and names.count("CLIPEncoderLayer") == 2


def test_one_process_shares_nothing_out():
    with pytest.raises(RuntimeError, match="sharded needs several devices"):
        sharding.shard(nn.Linear(2, 2), torch.device("cpu"))


def test_a_whole_model_has_the_values_of_the_one_that_is_trained(make_tiny):
    model = make_tiny()
    whole = sharding.WholeModel(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    with whole.filled(model, torch.device("cpu")) as found:
        assert found is not model
        for own, trained in zip(found.parameters(), model.parameters(), strict=True):
            assert torch.equal(own, trained) and not own.requires_grad
