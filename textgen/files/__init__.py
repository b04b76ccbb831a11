"""How files are written to last, opened with care, read back against their checksums, and
cached.
"""
