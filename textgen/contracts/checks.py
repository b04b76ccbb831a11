"""Builds components and checks their contracts. Raises ContractError, which names component and plugin."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import attrs

from textgen.contracts.guards import (
    FAILURES,
    WatchedTokenizer,
    check_ids,
    misdeclared,
    out_of_memory,
    shown_where,
    unfit,
)
from textgen.contracts.guards import blame as blame  # used where a fault is found elsewhere
from textgen.errors import ContractError, TextgenError
from textgen.plugin.component import OWN_DISTRIBUTION, BuildContext, Offer
from textgen.plugin.structure import Choice
from textgen.plugin.validation import cause_of
from textgen.protocols import Array, Ids, Tokenizer

_SAMPLE_CHARACTERS = 2000


def build(choice: Choice, context: BuildContext) -> Any:
    """Build the object of a component. Unexpected exceptions become a ContractError that names the plugin."""
    context = attrs.evolve(context, builder=context.builder or build)
    try:
        # A copy of the options: what `build` does to them changes neither the pipeline nor its record.
        made = choice.offer.component.build(copy.deepcopy(choice.options), context)
        kind = choice.offer.kind
        if fault := unfit(made, kind) or misdeclared(
            made, kind
        ):  # before a run calls a missing method
            raise blame(choice.offer, f"cannot be used: what `build` made {fault}")
        return WatchedTokenizer(made, choice.offer) if kind == "tokenizer" else made
    except TextgenError:
        raise
    except FAILURES as error:
        if (
            explained := out_of_memory(error, f"building {choice.offer.kind} {choice.name!r}")
        ) is not None:
            raise explained from error
        cause = f"cannot be built: {cause_of(error, choice.offer.plugin)} {shown_where(error, choice.offer)}"
        raise blame(choice.offer, cause) from error


def check_tokenizer(tokenizer: Tokenizer, offer: Offer, text: str) -> Tokenizer:
    """Check ids and the round trip on the beginning of the corpus: decoding and encoding must give the same ids.

    Returns the tokenizer saved and loaded, which may be another object.
    """
    import numpy as np

    size = tokenizer.vocab_size
    if not isinstance(size, int) or size < 1:
        raise blame(offer, f"has vocab_size {size!r} after fit, and must have a positive int")
    sample = text[:_SAMPLE_CHARACTERS]
    if len(text) > len(sample):  # cut where a token probably ends
        sample = sample[: max(sample.rfind(" "), sample.rfind("\n")) + 1] or sample
    ids = np.asarray(tokenizer.encode(sample))
    check_ids(ids, offer, size)
    known = ids[ids != tokenizer.unknown_id] if tokenizer.unknown_id is not None else ids
    decoded = tokenizer.decode(known)
    if not isinstance(decoded, str):
        raise blame(offer, f"decodes to {type(decoded).__name__}, and must give a str")
    again = np.asarray(tokenizer.encode(decoded))
    if not np.array_equal(again, known):
        same = [a == b for a, b in zip(known.tolist(), again.tolist(), strict=False)]
        place = same.index(False) if False in same else len(same)
        around = tokenizer.decode(known[max(0, place - 8) : place + 8])
        was, came = (
            f"is {ids[place]}" if place < len(ids) else "is none" for ids in (known, again)
        )
        raise blame(
            offer,
            f"fails its round trip: what ids decode to encodes to other ids, in {around!r}: id {place} {was}, and "
            f"{came} afterwards",
        )
    try:
        saved = json.loads(json.dumps(tokenizer.to_dict()))
    except (TypeError, ValueError) as error:
        raise blame(offer, f"has a to_dict that is not JSON: {error}") from error
    loaded = tokenizer.from_dict(saved)
    if not np.array_equal(np.asarray(loaded.encode(sample)), ids):
        raise blame(
            offer,
            "encodes to other ids once it is saved and loaded: to_dict and from_dict lose something",
        )
    _check_end(tokenizer, offer, ids, loaded)
    return loaded


def _check_end(tokenizer: Tokenizer, offer: Offer, ids: Ids, loaded: Tokenizer) -> None:
    """Check the id for the end of a document, if there is one."""
    import numpy as np

    end, size = getattr(tokenizer, "end_id", None), tokenizer.vocab_size
    if getattr(loaded, "end_id", None) != end:
        raise blame(
            offer,
            f"has end_id {end!r}, and {getattr(loaded, 'end_id', None)!r} once it is saved and loaded",
        )
    if end is None:
        return
    if not isinstance(end, int) or not 0 <= end < size or end == tokenizer.unknown_id:
        raise blame(
            offer,
            f"has end_id {end!r}, and must have an id of its own from 0 to {size - 1}, or None",
        )
    if end in ids:
        raise blame(
            offer,
            f"encodes text to its end_id {end}, which must stand for the end of a document alone",
        )
    shown = (
        tokenizer.decode(np.array([end])),
        tokenizer.incremental_decoder().decode(np.array([end])),
    )
    if any(shown):
        raise blame(
            offer,
            f"decodes its end_id {end} to {shown[0] or shown[1]!r}, and must decode it to nothing",
        )


def check_logits(logits: Array, shape: tuple[int, ...], offer: Offer) -> None:
    """Check shape, (B, V) or (B, T, V), and dtype of a model's logits."""
    given = getattr(logits, "shape", None)
    if given is None:
        what = "None" if logits is None else f"a {type(logits).__name__}"
        raise blame(offer, f"gave {what}, and must give logits of shape {shape}")
    if tuple(given) != shape:
        raise blame(offer, f"gave logits of shape {tuple(given)}, and must give {shape}")
    if (dtype := _name(logits.dtype)) not in ("float32", "float64"):
        raise blame(offer, f"gave logits of dtype {dtype}, and must give float32 or float64")


@cache
def _name(dtype: Any) -> str:
    """The name of a dtype of NumPy or torch. NumPy takes longer to say it than to make a token."""
    return str(dtype).removeprefix("torch.")


def check_greedy(ids: Ids, asked: tuple[int, int], size: int, offer: Offer) -> None:
    """Check the result of continue_greedily: ids (B, n), with n at most what was asked for."""
    if (
        ids.ndim != 2
        or len(ids) != asked[0]
        or ids.shape[1] > asked[1]
        or ids.dtype.kind not in "iu"
    ):
        raise blame(
            offer,
            f"gave {ids.dtype} of shape {ids.shape} from continue_greedily, and must give integers ({asked[0]}, n), "
            f"n at most {asked[1]}",
        )
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= size):
        raise blame(
            offer,
            f"gave ids from {ids.min()} to {ids.max()} from continue_greedily, outside 0 to {size - 1}",
        )


def explain_training(
    model: Any, offer: Offer, size: int, device: str, error: BaseException
) -> None:
    """If training failed because of what `forward` of a torch module returns, raise a ContractError for the model.

    `forward` is called again with one token, only after a failure, so that checking does not slow training down.
    """
    if offer.distribution == OWN_DISTRIBUTION or not callable(getattr(model, "forward", None)):
        return
    import torch

    try:
        given = model(torch.zeros((1, 1), dtype=torch.int64, device=device))
    except Exception:  # the first error says more
        return
    if not isinstance(given, tuple) or len(given) != 2:
        cause = f"gave {type(given).__name__} from forward, and must give logits and the state after them"
        raise blame(offer, cause) from error
    try:
        check_logits(given[0], (1, 1, size), offer)
    except ContractError as wrong:
        raise wrong from error
