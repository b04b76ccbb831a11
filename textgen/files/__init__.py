"""Files: written durably, opened with care, read back against their checksums, cached."""

from textgen.lazy import names_of as _names_of

__all__, __getattr__ = _names_of(__name__)
