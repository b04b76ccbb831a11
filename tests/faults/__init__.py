"""Faults of disks, machines and processes, injected for real into runs. See docs/reliability.md."""
