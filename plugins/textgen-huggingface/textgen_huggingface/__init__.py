"""Causal language models of transformers, and their tokenizers, for textgen.

The plugin itself is textgen_huggingface.plugin.
"""
