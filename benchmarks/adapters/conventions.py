"""Why a test of another package fails with lateint in the place of its operators, by a part of the test's name."""

GPU = "it needs a GPU: its memory, streams, graphs, compilation, or a device of its own"
WORDS = "the same input is refused in other words"
EXTRA = "what it expects lateint does not do"
OTHER = "it tests a kernel that lateint has nothing for"

CONVENTIONS: dict[str, dict[str, str]] = {
    "late_interaction_kernels": {
        "test_grad_parity_fp16": (
            "float16 against float32: with a CPU's random numbers two tokens are so near that rounding decides; "
            "the package's own reference, given float16, is off by the same 0.0114"
        ),
        "test_chunked_backward": OTHER,
        "test_fully_masked_doc_scores_zero": "a document without tokens scores 0 there, minus infinity here",
        "test_scatter_handles_empty": "a document without tokens scores 0 there, minus infinity here",
        "_rejects_": WORDS,
        "top_k_must_be_positive": WORDS,
        "different_devices_raises": "documents may lie elsewhere than queries: `retrieve` sends each chunk there",
        "wrong_device_raises": GPU,
        "reference_cuda": GPU,
        "peak_memory": GPU,
        "compile": GPU,
        "cuda_graph": GPU,
        "argmax_buffer": GPU,
        "async_assert": GPU,
        "too_small_max_seqlen": GPU,
        "backward_invalid": f"{EXTRA}: there is one backward, so `backward=` chooses nothing",
        "unnormalized_input_warns": f"{EXTRA}: a warning where tokens are not of length 1",
    },
    "flash_maxsim": {
        "chamfer": OTHER,
        "int8": OTHER,
        "test_sparse": "the test imports a name that the released package does not have",
    },
    "sentence_transformers": {"rejects_non_positive_topk": WORDS},
}
