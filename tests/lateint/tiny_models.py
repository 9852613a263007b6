"""Folders of tiny BERT models with random weights, for the tests of libraries that load such folders."""

import string

import numpy as np

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["red", "blue", "green", "black", "white", "rose", "sky", "leaf", "cat", "snow", "how", "the", "work"]


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


def tiny_colpali(package):
    """colpali-engine's ColPali with random weights, and its processor."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PaliGemmaConfig, PreTrainedTokenizerFast, SiglipImageProcessor

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<image>"]
    vocabulary = {token: number for number, token in enumerate([*special, *string.printable])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    processor = package.ColPaliProcessor(image_processor=images, tokenizer=tokenizer)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 1200 + len(tokenizer), "num_key_value_heads": 1, "head_dim": 16, "model_type": "gemma"}
    vision = {"image_size": 28, "patch_size": 14, "projection_dim": 32, "model_type": "siglip_vision_model"}
    config = PaliGemmaConfig(
        text_config={**size, **text, "pad_token_id": 0},
        vision_config={**size, **vision, "vision_use_head": False},
        projection_dim=32,
        hidden_size=32,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return package.ColPali(config).eval(), processor


class Pages:
    """As much of a processor of colpali-engine as an adapter uses: letters or pixels to numbers, padded on the left."""

    def process_queries(self, texts):
        """Letters."""
        return self._padded([[ord(letter) for letter in text] for text in texts])

    def process_images(self, images):
        """Up to twelve pixels."""
        return self._padded([list(np.asarray(image.convert("L")).ravel()[:12]) for image in images])

    def _padded(self, rows):
        import torch

        length = max(map(len, rows))
        ids, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, length - len(row) :], mask[i, length - len(row) :] = torch.tensor(row, dtype=torch.long), 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        return type("Inputs", (dict,), {"to": lambda self, device: self})(inputs)


def pages_model():
    """A model that reads what `Pages` gives, and a `Pages`."""
    import torch

    class Model(torch.nn.Module):
        device = "cpu"

        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(300, 16)

        def forward(self, input_ids, attention_mask):
            rows = torch.nn.functional.normalize(self.embedding(input_ids), dim=-1).bfloat16()
            return rows * attention_mask[..., None]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(), Pages()
