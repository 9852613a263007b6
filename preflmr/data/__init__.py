"""Questions, passages and pictures, wherever they lie. Nothing here knows a model."""
