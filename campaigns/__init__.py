"""Faults injected for real. Campaigns are modules to run, `python -m campaigns.NAME`; the suite has
samples.
"""
