"""The options of the built-in strategies."""

from __future__ import annotations

import attrs
from attrs.validators import and_, deep_iterable, ge, le, max_len, min_len

from textgen import NoOptions, option

_COUNT = and_(ge(1), le(256))
_MOST_PHRASES = 1000
_MAX_GUIDANCE = 1000  # beyond all use, and logits stay finite
_MAX_PHRASE = 1000  # characters of a phrase


@attrs.frozen
class SampleConfig(NoOptions):
    """A token at each step, drawn from what the samplers leave: what happens without a strategy."""


@attrs.frozen
class BeamConfig:
    """The likeliest of several texts that grow side by side (beam search), by the mean
    log-probability of what the samplers leave.

    A chain that ends in `greedy` leaves one. With groups, each takes other tokens than those before
    it (Vijayakumar et al., "Diverse beam search", 2016).
    """

    beams: int = option(4, help="number of beams", validator=_COUNT, argument="beams")
    groups: int = option(
        1, help="number of groups of beams", validator=_COUNT, argument="beam_groups"
    )
    diversity: float = option(
        0.5,
        help="penalty, in nats, of a token for each earlier group that takes it in the same step",
        validator=ge(0),
        argument="diversity_penalty",
    )

    def __attrs_post_init__(self) -> None:
        if self.beams % self.groups:
            raise ValueError("beams must be a multiple of groups")


@attrs.frozen
class BestOfConfig:
    """The best of several sampled texts, by the mean log-probability of their tokens."""

    n: int = option(8, help="number of texts to choose from", validator=_COUNT, argument="best_of")


@attrs.frozen
class GuidanceConfig:
    """Moves away from how another prompt would continue (classifier-free guidance).

    Logits are those after the other prompt plus `scale` times the difference, as in Sanchez et al.,
    "Stay on topic with classifier-free guidance", 2023.
    """

    negative_prompt: str = option(
        "", help="prompt to steer away from; none if empty", argument="negative_prompt"
    )
    scale: float = option(
        1.5,
        help="strength of the guidance; 1 is off",
        validator=and_(ge(0), le(_MAX_GUIDANCE)),
        argument="guidance_scale",
    )


@attrs.frozen
class BannedPhrasesConfig:
    """Never writes certain phrases: goes back to where one began, and on with another token.

    Case does not count. " art" with a space is the beginning of a word, "art" also a part of one.
    A phrase that begins in an earlier part of the text, which was saved, is not completed. What
    begins in the prompt does not count.
    """

    phrases: tuple[str, ...] = option(
        help="phrases that are never written",
        validator=and_(
            min_len(1),
            max_len(_MOST_PHRASES),
            deep_iterable(and_(min_len(1), max_len(_MAX_PHRASE))),
        ),
        argument="ban_phrase",
    )


@attrs.frozen
class FillConfig:
    """The text between a prompt and a suffix: of several sampled ones, that after which the suffix
    is the likeliest.
    """

    suffix: str = option(help="text that should follow", validator=min_len(1), argument="suffix")
    candidates: int = option(
        8, help="number of texts to choose from", validator=_COUNT, argument="candidates"
    )
