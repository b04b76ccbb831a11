"""Models of transformers and tokenizers of tokenizers, for textgen.

The plugin itself is textgen_huggingface.plugin.
"""
