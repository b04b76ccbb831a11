"""Faults injected for real. Campaigns are modules to run, `python -m tests.faults.NAME`; the suite has samples."""
