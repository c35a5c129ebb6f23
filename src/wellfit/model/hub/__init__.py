"""Weights in the layout of Hugging Face: names, loading, saving, and models of `transformers`."""
