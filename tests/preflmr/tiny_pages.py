"""Tiny models of pages with random weights, and their processors, as folders that transformers saves."""

import string

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS = ("colpali", "colqwen2", "colmodernvbert")


def save(kind, folder):
    """A checkpoint of a kind; returns its folder."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = {"colpali": colpali, "colqwen2": colqwen2, "colmodernvbert": colmodernvbert}[kind]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def letters(*special, side="right"):
    """A tokenizer of single characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    every = ["<pad>", "<eos>", "<bos>", "<unk>", *special]
    vocabulary = {token: number for number, token in enumerate([*every, *string.printable])}
    found = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=found,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(special),
        padding_side=side,
    )


def colpali():
    """ColPali on a PaliGemma of two layers."""
    from transformers import (
        ColPaliConfig,
        ColPaliForRetrieval,
        ColPaliProcessor,
        PaliGemmaConfig,
        SiglipImageProcessor,
    )

    tokenizer = letters("<image>", side="left")
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    processor = ColPaliProcessor(image_processor=images, tokenizer=tokenizer)
    text = {"vocab_size": 1200 + len(tokenizer), "num_key_value_heads": 1, "head_dim": 16, "model_type": "gemma"}
    vision = {"image_size": 28, "patch_size": 14, "projection_dim": 32, "model_type": "siglip_vision_model"}
    inner = PaliGemmaConfig(
        text_config={**SIZE, **text, "pad_token_id": 0},
        vision_config={**SIZE, **vision, "vision_use_head": False},
        projection_dim=32,
        hidden_size=32,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return ColPaliForRetrieval(ColPaliConfig(vlm_config=inner, embedding_dim=16)), processor


def colqwen2():
    """ColQwen2 on a Qwen2-VL of two layers; pages have as many patches as their size."""
    from transformers import ColQwen2Config, ColQwen2ForRetrieval, ColQwen2Processor, Qwen2VLConfig
    from transformers import Qwen2VLImageProcessor as ImageProcessor

    tokenizer = letters(
        "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"
    )
    images = ImageProcessor(patch_size=14, merge_size=2, min_pixels=28 * 28, max_pixels=56 * 56)
    processor = ColQwen2Processor(image_processor=images, tokenizer=tokenizer)
    known = tokenizer.convert_tokens_to_ids
    inner = Qwen2VLConfig(
        text_config={
            **SIZE,
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
            "bos_token_id": 2,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
        },
        image_token_id=known("<|image_pad|>"),
        vision_start_token_id=known("<|vision_start|>"),
        vision_end_token_id=known("<|vision_end|>"),
    )
    return ColQwen2ForRetrieval(ColQwen2Config(vlm_config=inner, embedding_dim=16)), processor


def colmodernvbert():
    """ColModernVBERT on a ModernBERT of two layers."""
    from transformers import (
        ColModernVBertConfig,
        ColModernVBertForRetrieval,
        ColModernVBertProcessor,
        Idefics3ImageProcessor,
        ModernVBertConfig,
    )

    tokenizer = letters("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<row_1_col_1>")
    images = Idefics3ImageProcessor(
        size={"longest_edge": 28}, max_image_size={"longest_edge": 28}, do_image_splitting=False
    )
    processor = ColModernVBertProcessor(images, tokenizer, image_seq_len=1)
    inner = ModernVBertConfig(
        text_config={**SIZE, "vocab_size": len(tokenizer), "pad_token_id": 0, "model_type": "modernbert"},
        vision_config={**SIZE, "image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model"},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pixel_shuffle_factor=2,
    )
    return ColModernVBertForRetrieval(ColModernVBertConfig(vlm_config=inner, embedding_dim=16)), processor
