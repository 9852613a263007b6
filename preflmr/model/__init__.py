"""The networks: texts and pictures to rows. `PreFLMR` is the whole; it needs torch and transformers."""

from preflmr.model.flmr import PreFLMR

__all__ = ["PreFLMR"]
