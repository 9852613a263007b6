"""Generators: tiny models with random weights, an encoder-decoder, a decoder alone, and one that chats."""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tiny_generators import KINDS, make, pictures, text_config  # noqa: E402

from preflmr.answering.generator import Generator  # noqa: E402
from preflmr.cli import main  # noqa: E402

QUESTION, PASSAGE = "what is this ?", "a red house by the dog " * 5


def asked(generator, n=4):
    """Prompts of different lengths."""
    return [generator.prompt(QUESTION, " ".join(PASSAGE.split()[: 3 * i]))[0] for i in range(n)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_answers_as_its_prompts_alone(kind, beams):
    generator = Generator(*make(kind), beams=beams, max_new_tokens=4)
    prompts, shown = asked(generator), pictures(4)
    together = generator.generate(prompts, shown)
    for found, prompt, picture in zip(together, prompts, shown, strict=True):
        ((text, score),) = generator.generate([prompt], [picture])
        assert (text, score) == (found[0], pytest.approx(found[1], abs=1e-4))
        assert len(text.split()) <= 4 and score < 0  # the prompt is no part of it
    assert any(text for text, _ in together)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_the_score_is_the_mean_log_probability_of_the_answer(kind, beams, monkeypatch):
    model, processor = make(kind)
    generator = Generator(model, processor, beams=beams, max_new_tokens=4)
    seen = []
    real = model.generate

    def spied(**given):
        made = real(**given)
        seen.append((given, made.sequences))
        return made

    monkeypatch.setattr(model, "generate", spied)
    ((_, score),) = generator.generate(asked(generator)[2:3], pictures(1))
    given, tokens = seen[0]
    inputs = {key: given[key] for key in ("pixel_values", "input_ids", "attention_mask")}
    prompt = inputs["input_ids"]
    with torch.no_grad():
        if kind == "blip2-t5":
            answer = tokens[:, 1:]
            logits = model(**inputs, decoder_input_ids=tokens[:, :-1]).logits
        else:
            answer = tokens[:, prompt.shape[1] :] if torch.equal(tokens[:, : prompt.shape[1]], prompt) else tokens
            whole = torch.cat([prompt, answer], 1)
            inputs |= {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
            logits = model(**inputs).logits
            logits = logits[:, prompt.shape[1] - 1 : -1]
    end = (answer[0] == 2).nonzero()
    n = int(end[0]) + 1 if len(end) else answer.shape[1]
    each = logits.log_softmax(-1)[0].gather(-1, answer[0, :, None])[:n, 0]
    assert score == pytest.approx(float(each.mean()), abs=1e-4)


def test_tokens_after_the_end_do_not_count():
    generator = Generator(*make("blip2-opt"), beams=1)
    logits = torch.randn(3, 2, 40, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[7, 2, 0], [7, 8, 9]])
    each = logits.log_softmax(-1)
    exact = [(each[0, 0, 7] + each[1, 0, 2]) / 2, (each[0, 1, 7] + each[1, 1, 8] + each[2, 1, 9]) / 3]
    assert generator._greedy_scores(tokens, list(logits)).tolist() == pytest.approx([float(one) for one in exact])


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_depends_on_picture_and_passage(kind):
    generator = Generator(*make(kind), beams=3, max_new_tokens=4)
    (first,), (other,) = (generator.generate([generator.prompt(QUESTION, "a dog")[0]], [p]) for p in pictures(8)[::7])
    (third,) = generator.generate([generator.prompt(QUESTION, "a cat")[0]], pictures(1))
    assert abs(first[1] - other[1]) > 1e-6 and abs(first[1] - third[1]) > 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(kind, dtype, tmp_path):
    model, processor = make(kind)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    half = Generator.from_pretrained(str(tmp_path), dtype=dtype, device="cpu", beams=1, max_new_tokens=1)
    full = Generator(model, processor, beams=1, max_new_tokens=1)
    for (_, score), (_, exact) in zip(*(one.generate(asked(one), pictures(4)) for one in (half, full)), strict=True):
        assert score != exact and score == pytest.approx(exact, abs=0.2)


def test_prompts_hold_question_passage_and_picture():
    blip, chat = Generator(*make("blip2-opt")), Generator(*make("llava"))
    text, cut = blip.prompt(QUESTION, "a {question} dog")
    assert (text, cut) == (f"Question: {QUESTION} Knowledge: a {{question}} dog Answer:", False)
    read = blip.inputs([text], pictures(1))["input_ids"][0].tolist()
    assert read[:4] == [4, 4, 4, 1] and blip.tokenizer.decode(read[4:8]) == "Question : what is"
    text, _ = chat.prompt(QUESTION, "a dog", pictures=2)
    assert text.startswith(f"<s>user <image><image>Knowledge: a dog\nQuestion: {QUESTION}\n") and text.endswith(" by :")
    read = chat.inputs([text], [pictures(2)[0] + pictures(2)[1]])["input_ids"][0].tolist()
    assert read.count(4) == 2 * 4 and read.count(1) == 1  # as many as patches; one first token
    assert Generator(*make("blip2-opt"), passages=False).prompt(QUESTION)[0] == f"Question: {QUESTION} Answer:"
    alone = Generator(*make("llava"), passages=False).prompt(QUESTION)[0]
    assert "Knowledge" not in alone and f"Question: {QUESTION}\nAnswer" in alone
    mine = Generator(*make("blip2-opt"), prompt="{passage} ! {question}").prompt(QUESTION, "dog")
    assert mine == (f"dog ! {QUESTION}", False)


@pytest.mark.parametrize("kind", KINDS)
def test_passages_are_cut_and_questions_are_not(kind):
    generator = Generator(*make(kind), max_length=40)
    text, cut = generator.prompt(QUESTION, PASSAGE * 3)
    assert cut and f"Question: {QUESTION}" in text
    kept = text[text.index("Knowledge: ") + len("Knowledge: ") :].split("\n")[0].removesuffix(" Answer:")
    assert kept and PASSAGE.startswith(kept)
    assert generator._length(text) == 40  # not a token more could stay
    assert len(generator.tokenizer(text)["input_ids"]) in (40, 41)  # with the first token of a chat twice
    short = Generator(*make(kind), max_length=8)
    with pytest.raises(ValueError, match="a prompt must fit into 8 tokens, this question alone is longer"):
        short.prompt(QUESTION, PASSAGE)


def test_the_tokenizers_own_limit_counts():
    model, processor = make("blip2-t5")
    processor.tokenizer.model_max_length = 30
    assert Generator(model, processor).max_length == 30 and Generator(model, processor, max_length=9).max_length == 9


def test_what_is_wrong_with_a_generator_is_said(tmp_path):
    model, processor = make("blip2-opt")
    with pytest.raises(ValueError, match="must read pictures and text, its processor is a TokenizersBackend"):
        Generator(model, processor.tokenizer)
    with pytest.raises(ValueError, match=r"prompt must hold \{question\} and \{passage\}, got 'Q: \{question\}'"):
        Generator(model, processor, prompt="Q: {question}")
    with pytest.raises(ValueError, match=r"prompt must hold \{question\} and no \{passage\}, got"):
        Generator(model, processor, passages=False, prompt="{question} {passage}")
    with pytest.raises(ValueError, match="beams must be at least 1, got 0"):
        Generator(model, processor, beams=0)
    with pytest.raises(ValueError, match="a generator without chat template reads one picture, got 2"):
        Generator(model, processor).prompt(QUESTION, "dog", 2)
    transformers.T5ForConditionalGeneration(text_config("blip2-t5")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must read pictures and write text \(image-text-to-text\), it does not$"):
        Generator.from_pretrained(str(tmp_path))


def test_a_processor_that_shows_no_picture_is_refused_or_mended():
    model, processor = make("blip2-opt")
    processor.num_query_tokens = None  # as in checkpoints of old
    generator = Generator(model, processor)
    assert generator.inputs(["a dog"], pictures(1))["input_ids"][0, :3].tolist() == [4, 4, 4]
    model.config.image_token_index = None
    with pytest.raises(ValueError, match="generator must have an image_token_index in its config"):
        Generator(model, processor)
    model, processor = make("blip2-opt")
    processor.num_query_tokens = 0
    with pytest.raises(ValueError, match="prompt must have a place for the picture"):
        Generator(model, processor).generate(["a dog"], pictures(1))


def test_scores_that_are_not_finite_are_refused():
    model, processor = make("blip2-opt")
    torch.nn.init.constant_(model.language_projection.bias, float("nan"))
    with pytest.raises(FloatingPointError, match=r"scores are not finite in torch\.float32: try bfloat16"):
        Generator(model, processor, beams=1).generate(["a dog"], pictures(1))


def test_answer_on_the_command_line(tmp_path, capsys):
    model, processor = make("blip2-t5")
    model.save_pretrained(tmp_path / "tiny")
    processor.save_pretrained(tmp_path / "tiny")
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    for n, (picture,) in enumerate(pictures(3)):
        picture.save(data / "images" / f"{n}.png")
    questions = [
        {"question_id": f"q{n}", "question": QUESTION, "img_path": f"{n}.png", "pos_item_ids": ["p0"],
         "answers": ["a dog"]} for n in range(3)
    ]  # fmt: skip
    passages = [{"passage_id": f"p{n}", "passage_content": text} for n, text in enumerate(("a dog", "a cat", "red"))]
    for name, rows in (("test", questions), ("passages", passages)):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [{"passage_id": f"p{n}", "score": 1.0 - n} for n in range(3)]
    (tmp_path / "run.json").write_text(json.dumps({f"q{n}": {"retrieved_passage": found} for n in range(3)}))
    arguments = ["answer", str(tmp_path / "tiny"), str(data), "--task", "OKVQA", "--out", str(tmp_path / "runs")]
    arguments += ["--beams", "2", "--dtype", "float32", "--device", "cpu"]
    main([*arguments, "--retrieved", str(tmp_path / "run.json"), "-k", "2", "--run", "table7-preflmr"])
    said = capsys.readouterr().out
    assert "OKVQA test: 3 questions answered" in said and "VQA score 0" in said
    rows = json.loads((tmp_path / "runs" / "OKVQA_table7-preflmr.answers.json").read_text())
    assert [len(row["candidates"]) for row in rows.values()] == [2, 2, 2]
    # The same as from Python, from the model in memory.
    generator = Generator(model, processor, beams=2)
    for (picture,), row in zip(pictures(3), rows.values(), strict=True):
        prompts = [generator.prompt(QUESTION, text)[0] for text in ("a dog", "a cat")]
        each = generator.generate(prompts, [[picture]] * 2)
        assert [(one["answer"], pytest.approx(one["score"], abs=1e-4)) for one in row["candidates"]] == each
    main([*arguments, "--run", "table7-without-retrieval", "--limit", "2"])
    settings = json.loads((tmp_path / "runs" / "OKVQA_table7-without-retrieval.answers.summary.json").read_text())
    assert settings["settings"]["prompt"] == "Question: {question} Answer:" and settings["settings"]["k"] is None
    capsys.readouterr()
    main(["report", str(tmp_path / "runs"), "--tables", "7"])
    said = capsys.readouterr().out
    assert "RA-VQAv2 with PreFLMR | 61.88 / 0.0 / -61.9" in said.replace("  ", " ")
    assert "table7-without-retrieval on OKVQA: only the first 2 questions." in said
