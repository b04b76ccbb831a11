"""The samplers of a request, from logits to a token."""
