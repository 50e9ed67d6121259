"""Embeddings, one entry for each input. Private."""
