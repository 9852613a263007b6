"""Folders of tiny BERT models with random weights, for the tests of libraries that load such folders."""

import json
import string

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "red blue green black white rose sky leaf cat snow how do the a of work".split()


def bert_folder(folder):
    """A BERT of two layers and its tokenizer, as `transformers` saves them."""
    import torch
    import transformers

    letters = string.ascii_lowercase + string.digits
    vocabulary = [*SPECIAL, *string.punctuation, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
    return folder


def write_json(path, value):
    """Writes a JSON file."""
    path.write_text(json.dumps(value))
