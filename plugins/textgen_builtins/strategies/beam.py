"""Beam search, with groups."""

from __future__ import annotations

import numpy as np

from textgen import BuildContext
from textgen.protocols import Floats, Lanes, Moves, Ranking, Tensors
from textgen_builtins.strategies.config import BeamConfig


class Beam:
    """Extends the best texts of each group. Those that have ended wait, as many as there are beams.

    State: `score` (L,), the log-probability of a lane's text, and `group` (L,).
    """

    def __init__(self, config: BeamConfig) -> None:
        self.lanes = 2 * config.beams
        self._groups, self._width = config.groups, config.beams // config.groups
        self._diversity = config.diversity

    def start(self) -> Tensors:
        """One text without tokens, from which all groups begin."""
        return {"score": np.zeros(()), "group": np.array(-1)}

    def step(self, lanes: Lanes) -> Moves | Ranking:
        """The best continuations of each group, until no better text can come of any."""
        score, group = lanes.state["score"], lanes.state["group"]
        ended, lengths = lanes.ended, np.array([len(ids) for ids in lanes.tokens])
        norms = score / np.maximum(lengths, 1)
        logprobs = lanes.sampled()
        taken = np.zeros(logprobs.shape[1])  # groups before that took each token
        moves: list[tuple[int, tuple[int, ...], float, int]] = []
        is_over = True
        for number in range(self._groups):
            mine = np.isin(group, (number, -1))
            done = np.flatnonzero(mine & ended)
            done = done[np.argsort(-norms[done], kind="stable")][: self._width]
            live = np.flatnonzero(mine & ~ended)
            if len(done) == self._width and (not len(live) or norms[live].max() <= norms[done[-1]]):
                live = live[:0]
            moves += [(int(i), (), score[i], number) for i in done]
            chosen = self._best(score[live], logprobs[live], self._diversity * taken)
            moves += [(int(live[i]), (token,), total, number) for i, token, total in chosen]
            taken[[token for _, token, _ in chosen if token >= 0]] += 1
            is_over &= not chosen
        if is_over:
            order = np.argsort(-norms, kind="stable")
            return Ranking(order.tolist(), norms[order].tolist())
        parents, tokens, totals, groups = zip(*moves, strict=True)
        state = {"score": np.array(totals), "group": np.array(groups)}
        return Moves(parents, tokens, state)

    def _best(
        self,
        score: Floats,
        logprobs: Floats,
        penalty: Floats,
    ) -> list[tuple[int, int, float]]:
        """The best continuations of lanes: lane, token and score; -1 for a lane that has none."""
        if not len(score):
            return []
        totals = score[:, None] + logprobs
        values = (totals - penalty).ravel()
        most = min(self._width, len(values))
        best = np.argpartition(-values, most - 1)[:most]
        best = best[np.lexsort((best, -values[best]))]
        size = logprobs.shape[1]
        made = [divmod(int(i), size) for i in best if values[i] > -np.inf]
        chosen = [(lane, token, float(totals[lane, token])) for lane, token in made]
        stuck = np.flatnonzero(np.isneginf(logprobs).all(1)).tolist()
        return ([(lane, -1, float(score[lane])) for lane in stuck] + chosen)[: self._width]


def build(config: BeamConfig, context: BuildContext) -> Beam:
    """The strategy."""
    return Beam(config)
