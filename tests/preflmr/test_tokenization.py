import json
import logging
import pickle
import string

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import BertTokenizer  # noqa: E402

from preflmr import FLMRDocumentTokenizer, FLMRQueryTokenizer  # noqa: E402
from preflmr.model.tokenization import check_not_empty  # noqa: E402

PAD, Q, D, UNK, CLS, SEP, MASK = range(7)
WORDS = [
    "[PAD]",
    "[unused0]",
    "[unused1]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *string.punctuation,
    "what",
    "bird",
    "red",
]
WHAT, BIRD, RED, COLON = (WORDS.index(word) for word in ("what", "bird", "red", ":"))


@pytest.fixture
def vocabulary(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(WORDS) + "\n")
    return file


def test_query(vocabulary):
    out = FLMRQueryTokenizer(vocabulary, 8)("What: bird")
    assert out["input_ids"].tolist() == [[CLS, Q, WHAT, COLON, BIRD, SEP, MASK, MASK]]
    assert out["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]
    assert out["input_ids"].dtype == out["attention_mask"].dtype == torch.int64
    attending = FLMRQueryTokenizer(vocabulary, 8, attend_to_mask_tokens=True)
    assert attending(["What: bird"])["attention_mask"].tolist() == [[1] * 8]
    assert FLMRQueryTokenizer(vocabulary, 8)("bird", max_length=5)["input_ids"].shape == (1, 5)


def test_document(vocabulary):
    tokenizer = FLMRDocumentTokenizer(vocabulary, 6)
    out = tokenizer(["red bird", ""])
    assert out["input_ids"].tolist() == [[CLS, D, RED, BIRD, SEP, PAD], [CLS, D, SEP, PAD, PAD, PAD]]
    assert out["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]
    assert tokenizer(["red bird"], padding="longest")["input_ids"].shape == (1, 5)
    assert tokenizer(["red"], max_length=100)["input_ids"].shape == (1, 6)
    assert tokenizer("red")["input_ids"].shape == (1, 6)  # one text, not three letters


def test_long_texts_are_cut_logged_once_and_counted(vocabulary, caplog):
    tokenizer = FLMRDocumentTokenizer(vocabulary, 5)
    with caplog.at_level(logging.WARNING, "preflmr.model.tokenization"):
        out = tokenizer(["red " * 9, "red", "red bird red"])
        tokenizer(["red " * 9])
    assert out["input_ids"].tolist()[0] == [CLS, D, RED, RED, SEP]
    assert tokenizer.truncated == 3
    assert [record.getMessage() for record in caplog.records] == [
        "texts of more than 5 tokens are cut; counted in .truncated from here on"
    ]


def test_empty_passages_are_refused_by_number(vocabulary):
    with pytest.raises(ValueError, match="passages must have a text, got an empty one at number 1"):
        FLMRDocumentTokenizer(vocabulary)(["red", " "], allow_empty=False)
    with pytest.raises(ValueError, match="at number 12"):
        check_not_empty(["red", "bird", ""], start=10)


def test_what_is_no_text_is_refused(vocabulary):
    tokenizer = FLMRQueryTokenizer(vocabulary)
    with pytest.raises(TypeError, match="texts must be strings, got int at number 1"):
        tokenizer(["red", 3])
    with pytest.raises(ValueError, match="texts must not be empty, got none"):
        tokenizer([])
    with pytest.raises(ValueError, match="query_maxlen must be at least 3, got 2"):
        FLMRQueryTokenizer(vocabulary, 2)


def test_punctuation(vocabulary):
    assert FLMRDocumentTokenizer(vocabulary).punctuation_ids() == [WORDS.index(c) for c in string.punctuation]


def test_published_files(vocabulary, tmp_path):
    folder = tmp_path / "saved"
    FLMRQueryTokenizer(vocabulary, 8, attend_to_mask_tokens=True).save_pretrained(folder / "query_tokenizer")
    FLMRDocumentTokenizer(vocabulary, 9).save_pretrained(folder / "context_tokenizer")
    for kind in ("query", "context"):
        files = sorted(file.name for file in (folder / f"{kind}_tokenizer").iterdir())
        assert files == ["special_tokens_map.json", "tokenizer_config.json", "vocab.txt"]
        assert (folder / f"{kind}_tokenizer" / "vocab.txt").read_text() == vocabulary.read_text()
    written = json.loads((folder / "query_tokenizer" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "FLMRQueryEncoderTokenizer" and written["query_maxlen"] == 8
    query = FLMRQueryTokenizer.from_pretrained(folder, subfolder="query_tokenizer")
    document = FLMRDocumentTokenizer.from_pretrained(folder, subfolder="context_tokenizer")
    assert (query.query_maxlen, query.attend_to_mask_tokens, document.doc_maxlen) == (8, True, 9)
    assert query("what: red!")["input_ids"].tolist()[0][:6] == [CLS, Q, WHAT, COLON, RED, WORDS.index("!")]


def test_added_tokens_survive(vocabulary, tmp_path):
    inner = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    inner.add_special_tokens({"additional_special_tokens": ["<BOK>", "<EOK>"]})
    FLMRDocumentTokenizer(inner, 8).save_pretrained(tmp_path / "saved")
    again = FLMRDocumentTokenizer.from_pretrained(tmp_path / "saved")
    ids = again(["<BOK> red <EOK>"])["input_ids"].tolist()[0]
    assert ids == [CLS, D, len(WORDS), RED, len(WORDS) + 1, SEP, PAD, PAD]
    assert len(again) == len(WORDS) + 2


def test_another_tokenizer_has_no_markers(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<unk>": 1, ".": 2, "red": 3}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")
    query = FLMRQueryTokenizer(inner, 4)
    assert not query.is_bert
    assert query("red")["input_ids"].tolist() == [[2, 3, 0, 0]]
    with pytest.raises(ValueError, match="attend_to_mask_tokens needs a tokenizer that has"):
        FLMRQueryTokenizer(inner, 4, attend_to_mask_tokens=True)
    query.save_pretrained(tmp_path)
    again = FLMRQueryTokenizer.from_pretrained(tmp_path)
    assert again.query_maxlen == 4 and torch.equal(again("red")["input_ids"], query("red")["input_ids"])


def test_tokenizers_go_to_other_processes(vocabulary):
    query = FLMRQueryTokenizer(vocabulary, 8)
    again = pickle.loads(pickle.dumps(query))
    assert torch.equal(again("red")["input_ids"], query("red")["input_ids"])
    assert len(query) == len(WORDS) and query.convert_tokens_to_ids(":") == COLON
