"""Search and build on residual codes: arrays, engines, and what each place computes with."""
