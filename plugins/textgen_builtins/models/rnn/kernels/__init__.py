"""Layers of cells in machine code of our own, made for this processor when they are first
needed.
"""
