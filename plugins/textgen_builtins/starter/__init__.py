"""The command init: a pipeline for a text, a machine and some minutes."""
