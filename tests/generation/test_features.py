"""Features together: a sample of `campaigns.features`, always the same one."""

import pytest

from campaigns import features

pytest.importorskip("llguidance")
SOME = (8, 16, 190, 545)  # guidance after ids, phrases that overlap, at once and in parts


@pytest.mark.parametrize("case", SOME)
def test_a_text_by_chance_is_the_same_in_every_way_and_as_asked(case):
    _, tried = next(features.numbered(seed=1, only=case))
    assert not tried()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 60, 20))
def test_more_texts_by_chance(first):
    for case in range(first, first + 20):
        name, tried = next(features.numbered(seed=2, only=case))
        assert not tried(), name
