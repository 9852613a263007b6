"""The operators on torch tensors: canonical form, autograd and the backend in plain torch. Imported at first use."""
