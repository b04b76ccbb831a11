"""What the benchmarks share: arguments, times and how they are shown."""

import argparse
import statistics
import time


def parser(description):
    """For the options of a program that its docstring describes."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw)


def seconds(call):
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show(name, found):
    """Print the median of figures and their spread."""
    low, median, high = min(found), statistics.median(found), max(found)
    print(f"{name:70} {median:8.2f} ({low:.2f} to {high:.2f})", flush=True)
