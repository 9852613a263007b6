import logging

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from lateint_kernels import maxsim  # noqa: E402

QUESTIONS = ["say: what is this", "say: how many are there, and why"]
PASSAGES = ["a red bird.", "two", "an old bridge", "7 eggs"]
TEXT, ROWS, PATCHES = 24, 4, 4  # of make_tiny


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny()


@pytest.fixture(scope="module")
def flmr(make_tiny):
    return make_tiny(use_transformer_mapping_network=False, context_concat_output_from_vision_encoder=True)


def pictures(*shape, seed=0):
    return torch.randn(*shape, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def forward(model, **arguments):
    q, d = model.query_tokenizer(QUESTIONS), model.document_tokenizer(PASSAGES)
    given = {"query_pixel_values": pictures(2)} | arguments
    for side, tokens in (("query", q), ("context", d)):
        given |= {f"{side}_{name}": tensor for name, tensor in tokens.items()}
    return model(**given)


def test_blocks_of_a_query(model):
    q = model.query_tokenizer(QUESTIONS)
    both = model.query(**q, pixel_values=pictures(2))
    text = model.query(**q)
    vision = model.query(**q, pixel_values=pictures(2), concat_output_from_text_encoder=False)
    rows = both.late_interaction_output
    assert rows.shape == (2, TEXT + ROWS + PATCHES, 16) and both.mask.shape == rows.shape[:2]
    torch.testing.assert_close(rows[:, :TEXT], text.late_interaction_output)
    torch.testing.assert_close(rows[:, TEXT:], vision.late_interaction_output)
    lengths = rows.norm(dim=2)
    torch.testing.assert_close(lengths[both.mask], torch.ones(int(both.mask.sum())))
    assert (lengths[~both.mask] == 0).all() and (~both.mask).any()
    # row 0, before its length became 1
    assert torch.equal(torch.nn.functional.normalize(both.pooler_output, dim=1), rows[:, 0])


def test_equal_texts_are_encoded_once_where_nothing_learns(model):
    q = model.query_tokenizer([QUESTIONS[0], QUESTIONS[1], QUESTIONS[0], QUESTIONS[0]])
    pixels, sizes = pictures(4), []
    hook = model.query_text_encoder.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    learning = model.query(**q, pixel_values=pixels)
    with torch.no_grad():
        frozen = model.query(**q, pixel_values=pixels)
        model.query_text_encoder.train()
        model.query(**q, pixel_values=pixels)  # each with dropout of its own
    model.query_text_encoder.eval()
    hook.remove()
    assert sizes == [4, 2, 4]
    torch.testing.assert_close(frozen.late_interaction_output, learning.late_interaction_output)
    assert torch.equal(frozen.mask, learning.mask)


def test_instruction_is_masked_and_padding_is_not(model):
    ids = model.query_tokenizer(["say: hi"])["input_ids"]
    assert model.query_mask(ids).int().tolist() == [[1, 1, 0, 0, 0, 0, *[1] * (TEXT - 6)]]


def test_missing_separator_is_logged_once_and_counted(make_tiny, caplog):
    model = make_tiny()
    with caplog.at_level(logging.WARNING, "preflmr.model.flmr"):
        out = model.query(**model.query_tokenizer(["what", "say: what", "why"]))
        model.query(**model.query_tokenizer(["what"]))
    assert out.mask.all(dim=1).tolist() == [True, False, True]
    assert model.queries_without_separator == 3
    assert len(caplog.records) == 1 and "has no ':'" in caplog.records[0].getMessage()


def test_several_pictures_of_a_query(model, flmr):
    """Rows of R pictures: MLP rows of each, then patch rows of each, as if each were alone."""
    shown = pictures(2, 3)
    for one, patches in ((model, PATCHES), (flmr, 0)):
        q = one.query_tokenizer(QUESTIONS)
        rows = one.query(**q, pixel_values=shown).late_interaction_output[:, TEXT:]
        assert rows.shape[1] == 3 * (ROWS + patches)
        for number in range(3):
            alone = one.query(**q, pixel_values=shown[:, number]).late_interaction_output[:, TEXT:]
            torch.testing.assert_close(rows[:, number * ROWS : (number + 1) * ROWS], alone[:, :ROWS])
            start = 3 * ROWS + number * patches
            torch.testing.assert_close(rows[:, start : start + patches], alone[:, ROWS:])


def test_features_instead_of_pixels(flmr):
    q, shown = flmr.query_tokenizer(QUESTIONS), pictures(2)
    out = flmr.query(**q, pixel_values=shown)
    features = out.vision_last_hidden_state[:, 0]
    again = flmr.query(**q, image_features=features)
    torch.testing.assert_close(again.late_interaction_output, out.late_interaction_output)
    twice = flmr.query(**q, image_features=torch.stack([features, features], dim=1))
    assert twice.late_interaction_output.shape[1] == TEXT + 2 * ROWS


def test_pictures_without_text(flmr):
    out = flmr.query(pixel_values=pictures(2))
    assert out.late_interaction_output.shape == (2, ROWS, 16) and out.text_last_hidden_state is None
    assert flmr.doc(pixel_values=pictures(2)).context_mask.shape == (2, ROWS, 1)


def test_documents(model, flmr):
    d = model.document_tokenizer(PASSAGES)
    out = model.doc(**d)
    ids = d["input_ids"]
    dot = model.document_tokenizer.convert_tokens_to_ids(".")
    assert torch.equal(out.mask, (ids != 0) & (ids != dot)) and torch.equal(out.context_mask[:, :, 0], out.mask)
    assert (out.late_interaction_output[~out.mask] == 0).all()
    rows = model.doc(**d, keep_dims=False).late_interaction_output
    assert [len(one) for one in rows] == out.mask.sum(dim=1).tolist()
    torch.testing.assert_close(torch.cat(rows), out.late_interaction_output[out.mask])
    assert model.doc(**d, return_mask=False).context_mask is None
    assert model.doc(**d, pixel_values=pictures(4)).mask.shape == out.mask.shape  # the config wants none

    shown = flmr.doc(**d, pixel_values=pictures(4))  # vision first
    alone = flmr.doc(pixel_values=pictures(4))
    torch.testing.assert_close(shown.late_interaction_output[:, :ROWS], alone.late_interaction_output)
    assert shown.mask[:, :ROWS].all() and torch.equal(shown.mask[:, ROWS:], out.mask)
    some = flmr.doc(**d, pixel_values=pictures(4), concat_output_from_vision_encoder=[True, False, True, True])
    assert some.mask[:, :ROWS].all(dim=1).tolist() == [True, False, True, True]
    assert (some.late_interaction_output[1, :ROWS] == 0).all()


def test_punctuation_may_stay(make_tiny):
    model = make_tiny(mask_punctuation=False)
    d = model.document_tokenizer(PASSAGES)
    assert torch.equal(model.doc(**d).mask, d["input_ids"] != 0)


def test_masked_rows_never_take_part(model):
    """Scores of documents whose padding is longer, and with every masked row gone, are the same."""
    out = forward(model)
    lists = model.doc(**model.document_tokenizer(PASSAGES), keep_dims=False).late_interaction_output
    scores = maxsim([rows[kept] for rows, kept in zip(out.query_late_interaction_output, out.mask, strict=True)], lists)
    torch.testing.assert_close(out.scores, torch.stack([scores[0, :2], scores[1, 2:]]))


def test_loss_without_in_batch_negatives(model):
    out = forward(model, use_in_batch_negatives=False)
    expected = torch.nn.functional.cross_entropy(out.scores, torch.tensor([0, 0]))
    torch.testing.assert_close(out.loss, expected)
    assert out.in_batch_negative_loss is None and out.scores.shape == (2, 2)
    one = forward(model, in_batch_negatives_from_all_gpus=True)  # one rank, no process group
    torch.testing.assert_close(one.loss, forward(model).loss)


def test_separate_text_encoders(make_tiny, tmp_path):
    model = make_tiny()
    d = model.document_tokenizer(PASSAGES)
    shared = model.doc(**d).late_interaction_output
    assert model.context_text_encoder is model.query_text_encoder
    count = len(model.state_dict())
    model.separate_text_encoders()
    model.separate_text_encoders()  # nothing left to do
    assert model.context_text_encoder is not model.query_text_encoder
    assert torch.equal(model.doc(**d).late_interaction_output, shared)
    assert len(model.state_dict()) == count + 7 + 16 * 2 + 1
    with torch.no_grad():
        model.query_text_encoder_linear.weight.zero_()
    assert torch.equal(model.doc(**d).late_interaction_output, shared)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again.doc(**d).late_interaction_output, shared)


@pytest.mark.parametrize("separate", [False, True])
def test_parts_hold_every_parameter_once(make_tiny, separate):
    model = make_tiny(
        separate_query_and_context_text_encoder=separate, separate_query_and_context_vision_encoder=separate
    )
    parts = model.parts()
    assert list(parts) == ["text_encoder", "vision_encoder", "mapping"]
    assert [len(modules) for modules in parts.values()] == ([4, 2, 5] if separate else [2, 1, 4])
    found = [id(p) for modules in parts.values() for module in modules for p in module.parameters()]
    assert sorted(found) == sorted(id(p) for p in model.parameters())


def test_context_names_of_what_is_shared(model):
    first = model.get_parameter("query_vision_projection.model.0.weight")
    assert model.get_parameter("context_vision_projection.model.0.weight") is first
    assert not any(name.startswith("context_") for name in model.state_dict())


def test_text_only_model(make_tiny):
    model = make_tiny(use_vision_encoder=False, use_transformer_mapping_network=False)
    assert model.query(**model.query_tokenizer(QUESTIONS)).late_interaction_output.shape == (2, TEXT, 16)
    assert model.parts()["vision_encoder"] == model.parts()["mapping"] == []
    with pytest.raises(ValueError, match="must be absent: this model has no vision encoder"):
        model.query(**model.query_tokenizer(QUESTIONS), pixel_values=pictures(2))
    with pytest.raises(AttributeError, match="no attribute 'context_vision_encoder'"):
        _ = model.context_vision_encoder


def test_half_precision(model):
    expected = forward(model).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = forward(model)
    torch.testing.assert_close(out.loss, expected, rtol=0.1, atol=0.1)
    with torch.no_grad():
        assert not forward(model).loss.requires_grad


@pytest.mark.parametrize("implementation", ["transformers", "open_clip"])
def test_gradient_checkpointing_changes_nothing(make_tiny, implementation):
    if implementation == "open_clip":
        pytest.importorskip("open_clip")
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    fields = {"vision_config": {**size, "image_size": 32, "patch_size": 16, "implementation": implementation}}
    model = make_tiny(**fields).train()
    for module in model.modules():  # no dropout, so that both runs are the same
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    for layer in model.query_text_encoder.bert_model.encoder.layer:
        layer.attention.self.dropout = torch.nn.Dropout(0.0)
    found = []
    for checkpointing in (False, True):
        model._set_gradient_checkpointing(
            checkpointing, lambda f, *x, **k: torch.utils.checkpoint.checkpoint(f, *x, use_reentrant=False, **k)
        )
        model.zero_grad()
        forward(model).loss.backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


def test_tokenizers_are_asked_for_where_they_are_needed(make_tiny):
    model = make_tiny()
    q, d = model.query_tokenizer(QUESTIONS), model.document_tokenizer(PASSAGES)
    model.query_tokenizer = model.document_tokenizer = None
    with pytest.raises(ValueError, match="query_tokenizer must be given: instructions up to ':'"):
        model.query(**q)
    with pytest.raises(ValueError, match="document_tokenizer must be given"):
        model.doc(**d)
    model.config.mask_instruction_token = "::"
    model.query_tokenizer = make_tiny().query_tokenizer
    with pytest.raises(ValueError, match="must be a token of the query tokenizer, got '::'"):
        model.query(**q)
    model.config.mask_instruction_token, model.config.mask_punctuation = None, False
    assert model.query(**q).mask.all() and torch.equal(model.doc(**d).mask, d["input_ids"] != 0)


IDS = torch.full((2, 5), 60)
REFUSED = {
    "nothing": ({}, "must have text rows or vision rows, got input and flags that leave neither"),
    "no picture": (
        {"input_ids": IDS, "concat_output_from_vision_encoder": True},
        "pixel_values or image_features must be given where concat_output_from_vision_encoder is True, got none",
    ),
    "no ids": ({"pixel_values": pictures(2), "concat_output_from_text_encoder": True}, "input_ids must be given where"),
    "no ids to look at": ({"pixel_values": pictures(2)}, "needs input_ids and pixel_values"),
    "features without patches": ({"input_ids": IDS, "image_features": torch.zeros(2, 32)}, "needs input_ids and pixel"),
    "ids of one axis": ({"input_ids": IDS[0]}, r"input_ids must be \[B, tokens\], at most 512 tokens, got \(5,\)"),
    "too many ids": ({"input_ids": IDS.repeat(1, 200)}, r"at most 512 tokens, got \(2, 1000\)"),
    "another mask": (
        {"input_ids": IDS, "attention_mask": IDS[:, 1:]},
        r"attention_mask must have the shape of input_ids, got \(2, 4\) and \(2, 5\)",
    ),
    "pixels of three axes": (
        {"input_ids": IDS, "pixel_values": pictures(2)[0]},
        r"must be \[B, 3, H, W\] or \[B, R, 3, H, W\], got \(3, 32, 32\)",
    ),
    "pixels of another size": (
        {"input_ids": IDS, "pixel_values": pictures(2)[..., :31]},
        r"pixel_values must be \[N, 3, 32, 32\], got \(2, 3, 32, 31\)",
    ),
    "fewer pictures": (
        {"input_ids": IDS, "pixel_values": pictures(1)},
        "input_ids and pictures must be as many, got 2 and 1",
    ),
    "no pictures": ({"input_ids": IDS, "pixel_values": pictures(2, 0)}, r"got \(2, 0, 3, 32, 32\)"),
    "flags for others": (
        {"input_ids": IDS, "concat_output_from_text_encoder": [True]},
        "concat_output_from_text_encoder must have a bool for each of 2, got 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_impossible_queries_are_refused_in_one_sentence(model, what):
    arguments, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        model.query(**arguments)


def test_impossible_documents_are_refused(model, flmr):
    with pytest.raises(ValueError, match="a row that takes part, got an empty one at number 1"):
        model.doc(input_ids=torch.tensor([[60, 60], [0, 0]]))
    with pytest.raises(ValueError, match="must not be given together"):
        flmr.doc(pixel_values=pictures(2), image_features=torch.zeros(2, 32))
    with pytest.raises(ValueError, match=r"image_features must be \[B, 32\] or \[B, R, 32\], got \(2, 31\)"):
        flmr.doc(image_features=torch.zeros(2, 31))
    with pytest.raises(ValueError, match="must be as many, got 1 of vision and 2"):
        flmr.doc(input_ids=IDS, pixel_values=pictures(1))


def test_impossible_batches_are_refused(model):
    with pytest.raises(ValueError, match="documents for each query, got 4 for 2 queries with num_negative_examples=2"):
        forward(model, num_negative_examples=2)
    with pytest.raises(ValueError, match="needs use_in_batch_negatives, which is False"):
        forward(model, use_in_batch_negatives=False, in_batch_negatives_from_all_gpus=True)


def test_features_only_model(make_tiny):
    size = {"hidden_size": 32, "num_attention_heads": 2, "implementation": "features"}
    model = make_tiny(vision_config=size, use_transformer_mapping_network=False)
    q = model.query_tokenizer(QUESTIONS)
    out = model.query(**q, image_features=torch.randn(2, 32))
    assert out.late_interaction_output.shape == (2, TEXT + ROWS, 16)
    with pytest.raises(ValueError, match="image_features must be given, not pixel_values"):
        model.query(**q, pixel_values=pictures(2))
