"""Documents from .npy files, safetensors files and Hugging Face data sets."""

from lateint.indexing.sources import Column, Npy, Safetensors

__all__ = ["Column", "Npy", "Safetensors"]
