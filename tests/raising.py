"""`pytest.raises` for the facts of an error, which stay when its words change."""

import contextlib

import pytest


@contextlib.contextmanager
def raises(error, /, **facts):
    """The block raises an error of this kind with these attributes: `raises(UsageError,
    argument="prompt")`.
    """
    with pytest.raises(error) as caught:
        yield caught
    assert {name: getattr(caught.value, name) for name in facts} == facts
