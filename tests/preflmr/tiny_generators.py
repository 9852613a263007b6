"""Generators small enough for tests, whose words are whole tokens: BLIP-2 with T5 or OPT, and LLaVA, which chats."""

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
WORDS = """
Question : Knowledge Answer what is this ? who made it the a dog cat red blue house of in was by
"""
TEXT = {"vocab_size": 40, "max_position_embeddings": 200, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEAD = 16  # numbers of one of two heads
SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
CHAT = (
    "<s>{% for m in messages %}user {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} by :{% endif %}"
)
KINDS = ("blip2-t5", "blip2-opt", "llava")


def tokenizer(kind):
    words = {word: number for number, word in enumerate(SPECIAL + WORDS.split())}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "$A </s>" if kind == "blip2-t5" else "<s> $A"
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}
    if kind == "llava":  # BLIP-2's processor adds it
        special["extra_special_tokens"] = {"image_token": "<image>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def text_config(kind):
    if kind == "blip2-t5":  # as Flan-T5, whose head is not the embedding of words
        return transformers.T5Config(
            vocab_size=40, d_model=32, d_kv=HEAD, d_ff=48, num_layers=1, num_heads=2, decoder_start_token_id=0,
            pad_token_id=0, eos_token_id=2, tie_word_embeddings=False, feed_forward_proj="gated-gelu", dropout_rate=0.0,
        )  # fmt: skip
    if kind == "blip2-opt":
        return transformers.OPTConfig(
            hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=32,
            dropout=0.0, **TEXT,
        )  # fmt: skip
    return transformers.LlamaConfig(**SIZE, num_key_value_heads=2, **TEXT)


def make(kind):
    """A model and its processor, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = _llava() if kind == "llava" else _blip2(kind)
        for name, weights in model.named_parameters():
            if weights.dim() > 1:
                # At the usual 0.02, inputs hardly matter. T5 does not divide what it attends by, but starts smaller.
                torch.nn.init.normal_(weights, std=0.3 / HEAD**0.5 if name.endswith(".q.weight") else 0.3)
        return model, processor


def _blip2(kind):
    config = transformers.Blip2Config(
        vision_config={**SIZE, "image_size": 32, "patch_size": 16},
        qformer_config={**SIZE, "vocab_size": 40, "encoder_hidden_size": 32},
        text_config=text_config(kind).to_dict(), num_query_tokens=3, image_token_index=4,
    )  # fmt: skip
    model = transformers.Blip2ForConditionalGeneration(config)
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    return model, transformers.Blip2Processor(images, tokenizer(kind), num_query_tokens=3)


def _llava():
    vision = transformers.CLIPVisionConfig(**SIZE, image_size=32, patch_size=16, projection_dim=32)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text_config("llava"), image_token_index=4,
        vision_feature_select_strategy="default", vision_feature_layer=-1,
    )  # fmt: skip
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_center_crop=True
    )
    processor = transformers.LlavaProcessor(
        images, tokenizer("llava"), patch_size=16, vision_feature_select_strategy="default", chat_template=CHAT,
        num_additional_image_tokens=1,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config), processor


def pictures(n):
    return [[Image.new("RGB", (40, 30), (20 * i, 255 - 20 * i, 90))] for i in range(n)]
