"""A run from start to end: what is trained, going on after a kill, stopping early, what is written."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402
from training import recipe, write_squares  # noqa: E402

from preflmr.data.m2kr import load  # noqa: E402
from preflmr.evaluation.retrieval import evaluate  # noqa: E402
from preflmr.model import PreFLMR  # noqa: E402
from preflmr.training import checkpoints, starting, train, validation  # noqa: E402
from preflmr.training.batches import Batches  # noqa: E402
from preflmr.training.image_states import ImageStates  # noqa: E402
from preflmr.training.mining import mine  # noqa: E402
from preflmr.training.recipe import Check, TrainConfig, Validation  # noqa: E402
from preflmr.training.recipe_file import build  # noqa: E402
from preflmr.training.train import run  # noqa: E402
from preflmr.training.validation import History  # noqa: E402

RANKS = Path(__file__).with_name("training_ranks.py")
ON_SQUARES = {"every": 2, "tasks": {"squares": {"measure": "Recall@1"}}, "select": "squares"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("squares") / "squares")


@pytest.fixture
def trained(data, make_tiny, tmp_path):
    """``trained(name of the output, **changes of the recipe) -> (summary, model)``."""

    def trained(output, resume=False, model=None, image_states=None, **changes):
        config = build(TrainConfig, recipe(tmp_path / output, data, **changes))
        model = model or make_tiny()
        given = {"model": model, "resume": resume, "image_states": image_states}
        return run(config, **given, cpu=True, progress=False), model

    return trained


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def moved(before, after):
    """The parts whose parameters changed."""
    names = [name for name, value in before.items() if not torch.equal(value, after[name])]
    parts = {"text_encoder": "text_encoder", "vision_encoder": "vision_encoder"}
    return {next((part for key, part in parts.items() if key in name), "mapping") for name in names}


def test_a_run_trains_what_it_names_and_tells_what_it_did(trained, make_tiny, tmp_path):
    before = state(make_tiny())
    summary, model = trained("run", validation=ON_SQUARES)
    assert moved(before, state(model)) == {"text_encoder", "mapping"}
    assert (summary["steps"], summary["queries"], summary["epochs"]) == (4, 16, pytest.approx(4 / 3))
    assert summary["peak_memory_bytes"] > 1e7 and summary["seconds"] > 0
    assert list(summary["validation"]) == ["2", "4"]
    best = summary["best"]
    assert best["value"] == max(one["squares"] for one in summary["validation"].values())
    folder = tmp_path / "run"
    assert json.loads((folder / "summary.json").read_text()) == summary
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 2, 4, 4]
    assert lines[0]["learning_rate/mapping"] == 1e-3 and math.isfinite(lines[0]["loss"])
    assert list((folder / "logs").iterdir())
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000004"]
    saved = PreFLMR.from_pretrained(folder / "best")
    if best["step"] == 4:
        assert_same_bits(state(saved), state(model))


def test_the_vision_encoder_alone(trained, make_tiny):
    before = state(make_tiny())
    _, model = trained("run", learning_rates={"vision_encoder": 1e-3}, steps=1)
    assert moved(before, state(model)) == {"vision_encoder"}


class Killed(BaseException):
    """As a signal would end it, nothing is caught."""


ADAPTED = {"model__separate_text_encoders": True, "model__lora": {"r": 2}}


@pytest.mark.parametrize("at, changes", [(3, {}), (5, {"precision": "bf16", "data__workers": 1}), (5, ADAPTED)])
def test_a_killed_run_goes_on_to_the_same_bits(trained, monkeypatch, tmp_path, at, changes):
    """With dropout, momentum, a schedule, and two batches a step; killed in the middle of a step."""
    settings = {"steps": 6, "save_every": 2, "optimizer__schedule": "cosine", "validation": ON_SQUARES, **changes}
    whole, uninterrupted = trained("whole", **settings)

    calls = []
    forward = train.Objective.forward

    def killed(self, batch):
        calls.append(batch)
        if len(calls) == 2 * at:
            raise Killed
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train.Objective, "forward", killed)
        with pytest.raises(Killed):
            trained("killed", **settings)
    done = checkpoints.latest(tmp_path / "killed")
    assert done is not None and done.name == f"step-{(at - 1) // 2 * 2:08d}"
    summary, resumed = trained("killed", resume=True, **settings)
    assert_same_bits(state(resumed), state(uninterrupted))
    assert summary["validation"] == whole["validation"] and summary["best"] == whole["best"]
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    kept = [[json.loads(line)["step"] for line in lines] for lines in logs]
    assert kept[0] == kept[1]
    assert trained("killed", resume=True, **settings)[0] == summary  # there is nothing left to do


def test_a_kill_while_saving_loses_nothing(trained, monkeypatch, tmp_path):
    settings = {"steps": 4, "save_every": 2}
    _, uninterrupted = trained("whole", **settings)
    write = checkpoints.Progress.write

    def killed(self, path):
        if self.step == 4:
            raise Killed
        write(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Progress, "write", killed)
        with pytest.raises(Killed):
            trained("killed", **settings)
    assert checkpoints.latest(tmp_path / "killed").name == "step-00000002"
    _, resumed = trained("killed", resume=True, **settings)
    assert_same_bits(state(resumed), state(uninterrupted))
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()] == ["step-00000004"]


def test_a_kill_while_validating_loses_nothing(trained, monkeypatch, tmp_path):
    settings = {"validation": ON_SQUARES, "save_minutes": None}
    whole, uninterrupted = trained("whole", **settings)
    measure, calls = validation.Validator.measure, []

    def killed(*given):
        calls.append(given)
        if len(calls) == 2:
            raise Killed
        return measure(*given)

    with monkeypatch.context() as patch:
        patch.setattr(validation.Validator, "measure", killed)
        with pytest.raises(Killed):
            trained("killed", **settings)
    assert checkpoints.latest(tmp_path / "killed").name == "step-00000004"
    monkeypatch.setattr(train, "step", lambda *_: pytest.fail("nothing is left to train"))
    summary, resumed = trained("killed", resume=True, **settings)
    assert_same_bits(state(resumed), state(uninterrupted))
    assert (summary["validation"], summary["best"]) == (whole["validation"], whole["best"])


def test_a_checkpoint_is_evaluated_with_what_it_was_trained_with(trained, make_tiny, data, tmp_path):
    """Rows, instructions, and what stands for an absent picture: stage 1 and row 07 of the paper's Table 2."""
    tasks = {"squares": {"measure": "Recall@1"}}
    settings = {"query_parts": ["vision"], "validation": {"every": 1, "tasks": tasks, "select": "squares"}}
    summary, _ = trained("run", steps=1, data__use_instructions=False, learning_rates={"mapping": 1e-2}, **settings)
    saved = PreFLMR.from_pretrained(tmp_path / "run" / "best")
    assert not saved.config.query_concat_output_from_text_encoder and not saved.config.use_instructions
    found = evaluate(saved, load(data, split="valid"), nbits=8, progress=False)
    assert found.summary["settings"]["instruction"] == ""
    assert found["Recall@1"] == summary["validation"]["1"]["squares"]
    trained("text", steps=1, data__without_image="none")
    assert json.loads((tmp_path / "text" / "best" / "config.json").read_text())["without_image"] == "text"
    again = starting.start_model(build(TrainConfig, recipe("x", data)), saved)  # the next stage has its own
    assert again.config.query_concat_output_from_text_encoder and again.config.use_instructions


def test_a_validation_changes_nothing_in_what_is_trained(trained, monkeypatch):
    measure = validation.Validator.measure
    monkeypatch.setattr(validation.Validator, "measure", lambda *given: torch.rand(7) is None or measure(*given))
    (_, with_one), (_, without) = trained("with", validation=ON_SQUARES), trained("without")
    assert_same_bits(state(with_one), state(without))


def test_checkpoints_are_written_by_time_and_some_are_kept(trained, monkeypatch, tmp_path):
    written = []
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *given: written.append(given[2].step) or save(*given))
    trained("at-the-end", steps=3)
    assert written == [3]  # half an hour was not over
    written.clear()
    trained("by-time", steps=3, save_minutes=1e-9, keep_checkpoints=2)
    assert written == [1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "by-time" / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000003",
    ]


def test_a_start_that_fails_leaves_its_folder_free(trained, make_tiny, tmp_path, monkeypatch):
    blind = make_tiny(use_vision_encoder=False, use_transformer_mapping_network=False)
    with pytest.raises(ValueError, match="learning_rates names vision_encoder"):
        trained("run", learning_rates={"vision_encoder": 1e-3}, model=blind)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(train.Objective, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # in the first step, before there is a checkpoint
        trained("run", steps=3)
    monkeypatch.undo()
    assert trained("run", steps=1)[0]["steps"] == 1


def test_a_folder_in_use_is_refused(trained):
    trained("run", steps=1)
    with pytest.raises(FileExistsError, match="there is a run in this folder"):
        trained("run", steps=1)
    with pytest.raises(ValueError, match="only be resumed by its own recipe, this one differs in seed, steps"):
        trained("run", steps=2, seed=1, resume=True)


def test_several_batches_a_step_are_one_large_one(trained, monkeypatch, make_tiny):
    """Where negatives are a query's own, and without dropout."""
    monkeypatch.setattr(starting, "set_training", lambda model, config: model.eval())
    found = []
    for size in (4, 1):
        _, model = trained(f"by{size}", batch_size=size, loss__in_batch=False, steps=2, optimizer__eps=1e-3)
        found.append(state(model))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"gradient_checkpointing": True}, {"loss__chunk": 1}])
def test_options_change_little(trained, monkeypatch, tmp_path, changes):
    monkeypatch.setattr(starting, "set_training", lambda model, config: model.train() and _no_dropout(model))
    for name, settings in (("plain", {}), ("changed", changes)):
        trained(name, steps=2, **settings)
    plain, changed = (json.loads((tmp_path / name / "log.jsonl").read_text())["loss"] for name in ("plain", "changed"))
    assert changed == pytest.approx(plain, rel=0.05 if "precision" in changes else 1e-4)


def _no_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


def test_gradients_can_be_shortened(trained, make_tiny):
    before = state(make_tiny())
    _, model = trained("run", steps=1, optimizer={"eps": 1.0, "max_norm": 1e-6})
    largest = max((value - before[name]).abs().max().item() for name, value in state(model).items())
    assert 0 < largest < 1e-8


def test_a_loss_that_is_no_number_ends_the_run(trained, monkeypatch):
    forward = train.Objective.forward
    monkeypatch.setattr(train.Objective, "forward", lambda self, batch: forward(self, batch) * float("nan"))
    with pytest.raises(FloatingPointError, match="the loss became nan between steps 0 and 2"):
        trained("run")


def test_cached_documents_train_alike(trained, monkeypatch):
    monkeypatch.setattr(starting, "set_training", lambda model, config: model.eval())
    found = [
        state(
            trained(f"{cached}", data__cache_documents=cached, learning_rates={"mapping": 1e-3}, optimizer__eps=1e-3)[1]
        )
        for cached in (False, True)
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_the_best_validation_is_kept_and_the_run_ends_when_it_gets_worse(trained, monkeypatch, tmp_path):
    values = iter([0.5, 0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(validation.Validator, "measure", lambda *arguments: next(values))
    settings = {**ON_SQUARES, "every": 1, "stop_after": 2}
    summary, _ = trained("run", steps=10, save_every=1, validation=settings)
    assert summary["best"] == {"step": 2, "value": 0.9}
    assert summary["stopped_early"] and summary["steps"] == 4
    assert checkpoints.latest(tmp_path / "run").name == "step-00000004"


def test_the_text_stage_learns_from_mined_negatives_and_their_scores(trained, make_tiny, tmp_path, data):
    def blind():
        return make_tiny(use_vision_encoder=False, use_transformer_mapping_network=False)

    file = tmp_path / "mined.jsonl"
    mine(blind(), load(data, split="train"), file, k=5, without_answer=False, progress=False)
    settings = {
        "model": blind(),
        "query_parts": ["text"],
        "data__without_image": "none",
        "data__mix__squares": {"instructions": "none", "negatives": str(file), "hard_negatives": 2},
        "learning_rates": {"text_encoder": 1e-3},
        "loss__in_batch": False,
        "loss__distillation": {"loss": "margin_mse", "weight": 0.5},
        "validation": ON_SQUARES,
    }
    before = state(blind())
    summary, model = trained("text", **settings)
    assert moved(before, state(model)) == {"text_encoder"} and "4" in summary["validation"]


def test_two_devices_train_as_one(trained, make_tiny, data, tmp_path, monkeypatch):
    """Negatives and gradients of both, two batches a step, with GradCache, with FSDP; also when resumed."""
    monkeypatch.setattr(starting, "set_training", lambda model, config: model.eval())
    start = tmp_path / "start"
    make_tiny().save_pretrained(start)
    shared = {
        "queries_per_step": 8,
        "steps": 3,
        "optimizer__eps": 1e-3,
        # Of two devices each measures one task.
        "validation": {
            "every": 1,
            "select": "again",
            "tasks": {**ON_SQUARES["tasks"], "again": {**ON_SQUARES["tasks"]["squares"], "questions": 6}},
        },
    }
    trained("one", model=PreFLMR.from_pretrained(start), batch_size=4, **shared)
    settings = {"model": {"start": str(start)}, "loss__across_devices": True, "batch_size": 2, **shared}
    recipes = [
        recipe(tmp_path / "two", data, **settings),
        recipe(tmp_path / "two-chunked", data, **settings, loss__chunk=1),
        recipe(tmp_path / "two-sharded", data, **settings, sharded=True),
    ]
    (tmp_path / "recipes.json").write_text(json.dumps(recipes))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([sys.executable, RANKS, "2", tmp_path / "recipes.json"], env=environment, check=True, timeout=300)
    for two in ("two", "two-chunked", "two-sharded"):
        states = [load_file(tmp_path / name / "best" / "model.safetensors") for name in ("one", two)]
        torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)
        summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", two)]
        assert [one["devices"] for one in summaries] == [1, 2]
        assert summaries[0]["queries"] == summaries[1]["queries"] == 24
        assert summaries[0]["validation"] == summaries[1]["validation"]


def test_a_launcher_on_cpus_trains_together(make_tiny, data, tmp_path):
    make_tiny().save_pretrained(tmp_path / "start")
    settings = recipe(tmp_path / "run", data, model={"start": str(tmp_path / "start")}, steps=1)
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GLOO_SOCKET_IFNAME": "lo"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "preflmr", "train", "--config", tmp_path / "recipe.yaml"]
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["devices"] == 2


def test_processes_that_do_not_find_each_other_are_refused(trained, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(train, "Accelerator", lambda **_: type("Alone", (), {"num_processes": 1}))
    with pytest.raises(RuntimeError, match="must train together: 2 were started, accelerate sees 1"):
        trained("run")


def test_when_to_stop():
    settings = Validation(every=1, tasks={"a": Check(), "b": Check()}, select="mean", stop_after=2)

    def stops(*pairs):
        history = History()
        for step, (a, b) in enumerate(pairs):
            history.add(step, {"a": a, "b": b}, settings)
        return history.should_stop(settings), history.best

    assert stops((0.5, 0.5), (0.4, 0.6)) == (False, (0, 0.5))
    assert stops((0.5, 0.5), (0.4, 0.6), (0.3, 0.9))[0]  # a was worse twice
    assert not stops((0.5, 0.5), (0.4, 0.6), (0.5, 0.5), (0.4, 0.6))[0]  # not in a row
    assert not stops((0.5, 0.5), (0.5, 0.5), (0.5, 0.5))[0]  # not worse


def test_less_loss_is_better():
    settings = Validation(every=1, tasks={"a": Check(measure="NLL")}, select="a", stop_after=2)
    history = History()
    assert [history.add(step, {"a": value}, settings) for step, value in enumerate((2.0, 1.5, 1.6, 1.7))] == [
        True,
        True,
        False,
        False,
    ]
    assert history.best == (1, 1.5) and history.should_stop(settings)
    with pytest.raises(ValueError, match="select must not be mean where NLL"):
        Validation(every=1, tasks={"a": Check(measure="NLL"), "b": Check()}, select="mean")


def test_the_loss_of_a_split_is_that_of_fixed_batches(trained, make_tiny, data, tmp_path):
    tasks = {"squares": {"measure": "NLL", "questions": 7}}
    settings = {"steps": 2, "learning_rates": {"mapping": 1e-3}, "models_every": 1}
    summary, model = trained("run", validation={"every": 1, "tasks": tasks, "select": "squares"}, **settings)
    found = [one["squares"] for one in summary["validation"].values()]
    assert found[0] != found[1] and summary["best"]["value"] == min(found)
    models = [PreFLMR.from_pretrained(tmp_path / "run" / "models" / f"step-0000000{n}") for n in (1, 2)]
    assert_same_bits(state(models[1]), state(model))
    config = build(TrainConfig, recipe("x", data, validation={"every": 1, "tasks": tasks}))
    valid = load(data, split="valid", limit=7)
    again = [validation.nll(one, valid, "squares", config.validation.tasks["squares"], config) for one in models]
    assert again == found
    # Three batches of two questions, each among its own 1 + 2 passages and the other question's.
    batches = Batches(config.data, {"squares": valid}, models[0], batch_size=2, seed=0)
    losses = []
    for number in range(3):
        batch = batches[number]
        pixels = {"pixel_values": batch.queries["pixel_values"]}
        text = {name: batch.queries[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            q, d = models[0].query(**text, **pixels), models[0].doc(**batch.documents)
        pairs = torch.einsum("aik,bjk->abij", q.late_interaction_output, d.late_interaction_output)
        pairs = pairs.masked_fill(~d.mask[None, :, None], -9999).amax(3)
        losses.append(torch.nn.functional.cross_entropy((pairs * q.mask[:, None]).sum(2), torch.tensor([0, 3])))
    assert float(sum(losses)) / 3 == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize("rates, times", [({"mapping": 1e-3}, 1), ({"text_encoder": 1e-4}, 2)])
def test_passages_that_do_not_change_are_indexed_once(trained, monkeypatch, rates, times):
    calls = []
    build_index = validation.passage_index
    monkeypatch.setattr(
        validation, "passage_index", lambda *given, **more: calls.append(given) or build_index(*given, **more)
    )
    trained("run", learning_rates=rates, validation=ON_SQUARES)
    assert len(calls) == times


def test_cached_pictures_train_alike(trained, monkeypatch):
    monkeypatch.setattr(starting, "set_training", lambda model, config: model.eval())
    settings = {"learning_rates": {"mapping": 1e-3}, "optimizer__eps": 1e-3}
    found = [state(trained(f"{cached}", data__cache_images=cached, **settings)[1]) for cached in (False, True)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_stages_share_the_states_of_pictures(trained):
    settings = {"learning_rates": {"mapping": 1e-3}, "data__cache_images": True}
    alone = state(trained("alone", **settings)[1])
    images = ImageStates()
    trained("first", image_states=images, **settings)
    known = len(images)
    shared = state(trained("second", image_states=images, **settings)[1])
    assert len(images) == known > 0
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-5)


def test_validation_shows_the_rows_that_are_trained(trained, monkeypatch, make_tiny, data, tmp_path):
    seen = []
    evaluate = validation.evaluate

    def watching(model, dataset, index, **settings):
        seen.append((model.config.query_concat_output_from_text_encoder, settings["instruction"], settings["method"]))
        return evaluate(model, dataset, index, **settings)

    monkeypatch.setattr(validation, "evaluate", watching)
    tasks = {"squares": {"measure": "Pseudo Recall@2", "exact": True, "instructions": "none"}}
    trained("run", steps=1, query_parts=["vision"], validation={"every": 1, "tasks": tasks})
    assert seen == [(False, "", "exact")]
    with pytest.raises(ValueError, match=r"validation.tasks.squares must name its measure"):
        trained("other", steps=1, validation={"every": 1, "tasks": {"squares": {"task": "CC"}}})
