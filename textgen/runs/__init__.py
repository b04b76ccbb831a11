"""Run directories: training, checkpoints, loading."""
