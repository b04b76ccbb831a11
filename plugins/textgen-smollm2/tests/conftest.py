"""Settings for all tests."""

import os

# Before torch is loaded: on busy cores, small matrices take longest where threads share them.
os.environ["OMP_NUM_THREADS"] = "1"
