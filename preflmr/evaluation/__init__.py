"""How well a model finds what answers a question, and the paper's tables."""
