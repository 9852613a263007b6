"""A PreFLMR small enough for tests: random weights; a vocabulary of single characters, so that any text is known."""

import string

import pytest

SPECIAL = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory):
    """``make_tiny(**fields of FLMRConfig) -> PreFLMR``, always with the same weights."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from preflmr.config import FLMRConfig
    from preflmr.model import PreFLMR
    from preflmr.model.tokenization import FLMRDocumentTokenizer, FLMRQueryTokenizer

    letters = string.ascii_lowercase + string.digits
    vocabulary = [*SPECIAL, *string.punctuation, *letters, *(f"##{letter}" for letter in letters)]
    file = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    file.write_text("\n".join(vocabulary) + "\n")
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}

    def make(query_maxlen=24, doc_maxlen=64, **fields):
        settings = {
            "text_config": {**size, "vocab_size": len(vocabulary), "query_maxlen": query_maxlen},
            "vision_config": {**size, "image_size": 32, "patch_size": 16},
            "dim": 16,
            "mapping_network_prefix_length": 4,
            "use_transformer_mapping_network": True,
            "transformer_mapping_config_base": {**size, "hidden_size": 32},
            "transformer_mapping_num_hidden_layers": 1,
            "transformer_mapping_cross_attention_length": query_maxlen,
            "mask_instruction_token": ":",
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = FLMRConfig(**{**settings, **fields})
            tokenizers = FLMRQueryTokenizer(file, query_maxlen), FLMRDocumentTokenizer(file, doc_maxlen)
            return PreFLMR(config, *tokenizers).eval()

    return make
