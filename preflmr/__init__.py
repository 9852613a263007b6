"""Reserved for PreFLMR: models and training on top of lateint; empty until they arrive."""
