"""Decoders of the recurrent model against the torch module's forward pass, and each row against itself alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_python
from components import context, letters, make

import textgen
from textgen import BuildContext

CELLS = [
    pytest.param({"cell": "rnn"}, id="rnn-tanh"),
    pytest.param({"cell": "relu"}, id="rnn-relu"),
    pytest.param({"cell": "gru"}, id="gru"),
    pytest.param({"cell": "lstm"}, id="lstm"),
]
INPUTS = [
    pytest.param({}, id="one-hot"),
    pytest.param({"embedding_size": 7}, id="embedding"),
    pytest.param({"embedding_size": 24, "tied_weights": True}, id="tied"),
]
VOCABULARY = letters(19)
SIZE = len(VOCABULARY) + 1  # and <unk>


def module(seed: int = 3, device: str = "cpu", **options: Any) -> Any:
    """The model as it trains: a torch module with random weights."""
    return make(
        "model",
        "rnn",
        context(vocabulary=VOCABULARY, training=True, seed=seed, device=device),
        **options,
    )


def model(trained: Any, dtype: Any = np.float32, **options: Any) -> Any:
    """The model as it generates on a CPU, with the module's weights."""
    made = make("model", "rnn", context(vocabulary=VOCABULARY), **options)
    made.load_tensors({name: array.astype(dtype) for name, array in trained.tensors().items()})
    return made


def fast(seed: int = 3, **options: Any) -> Any:
    return model(module(seed, **options), **options)


def ids(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, SIZE, shape)


def log_softmax(logits: Any) -> Any:
    rows = np.asarray(logits, np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_it_agrees_with_the_forward_pass(
    cell: dict[str, Any], inputs: dict[str, Any], layers: int, dtype: str
) -> None:
    import torch

    options = {**cell, **inputs, "layers": layers, "hidden_size": 24}
    trained = module(**options).to(getattr(torch, dtype)).eval()
    tokens = ids(1, 2_000)
    with torch.inference_mode():
        logits, state = trained(torch.from_numpy(tokens))
    decoder = model(trained, dtype, **options).decoder(1)
    ours = decoder.score(tokens)
    assert ours.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert np.abs(log_softmax(ours) - log_softmax(logits.numpy())).max() < tolerance
    carried = decoder.read_state()
    step = 2 if options["cell"] == "lstm" else 1
    assert np.stack(state[::step], axis=1) == pytest.approx(carried["hidden"], abs=tolerance)
    if step == 2:
        assert np.stack(state[1::2], axis=1) == pytest.approx(carried["cell"], abs=tolerance * 10)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_trained_it_is_as_close_to_the_truth_as_the_forward_pass(cell: str, tmp_path: Path) -> None:
    """Training makes weights larger and gates that hardly move: rounding counts for more than with random weights."""
    import torch

    options = {"cell": cell, "layers": 2, "hidden_size": 48}
    pipeline = {
        "device": "cpu",
        "threads": 1,
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 32},
        "model": {"type": "rnn", **options},
        "trainer": {"type": "adamw", "learning_rate": 0.01, "length": "4 epochs"},
        "generate": {"max_new_tokens": 1},
        "observer": [],
    }
    generator = textgen.run(pipeline, output=tmp_path / "run").generator
    story = "".join(textgen.Engine().read_corpus({"type": "story"}))
    tokens = generator.encode_prompt(story[:10_000])[None].astype(np.int64)
    bare = BuildContext(
        folder=tmp_path, tokenizer=generator.tokenizer, training=True, requested_device="cpu"
    )
    trained = make("model", "rnn", bare, **options).eval()
    trained.load_tensors(generator.model.tensors())
    ours = log_softmax(generator.model.decoder(1).score(tokens))
    with torch.inference_mode():
        theirs, _ = trained(torch.from_numpy(tokens))
        exactly, _ = trained.double()(torch.from_numpy(tokens))
    theirs, exactly = log_softmax(theirs.numpy()), log_softmax(exactly.numpy())
    assert np.abs(ours - theirs).max() < 1e-5
    off, torchs = (np.sqrt(np.square(given - exactly).mean()) for given in (ours, theirs))
    assert off < 1.2 * torchs


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_all_at_once_and_step_by_step_agree_exactly(
    cell: dict[str, Any], layers: int, batch: int
) -> None:
    made = fast(**cell, layers=layers, hidden_size=33)
    tokens = ids(batch, 40)
    whole, steps, scored, mixed = (made.decoder(batch) for _ in range(4))
    rows = [steps.extend(tokens[:, t : t + 1]).copy() for t in range(40)]
    assert np.array_equal(scored.score(tokens), np.stack(rows, axis=1))
    assert np.array_equal(whole.extend(tokens), rows[-1])
    assert np.array_equal(mixed.extend(tokens[:, :7]), rows[6])
    assert np.array_equal(mixed.extend(tokens[:, 7:]), rows[-1])
    for name, array in whole.read_state().items():
        assert np.array_equal(array, steps.read_state()[name])


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("cell", CELLS)
def test_nothing_fed_gives_what_follows_so_far(cell: dict[str, Any], batch: int) -> None:
    import torch

    options = {**cell, "layers": 2, "hidden_size": 9}
    trained = module(**options)
    decoder = model(trained, **options).decoder(batch)
    nothing = np.empty((batch, 0), np.int64)
    start = decoder.extend(nothing)
    with torch.no_grad():
        head = trained.head(torch.zeros(batch, 9)).numpy()
    assert start == pytest.approx(head, abs=1e-6)
    kept = start.copy()
    start[:] = np.nan  # the caller may write into it
    assert np.array_equal(decoder.extend(nothing), kept)
    later = decoder.extend(ids(batch, 5)).copy()
    decoder.extend(nothing)[:] = -np.inf
    assert np.array_equal(decoder.extend(nothing), later)
    after = decoder.extend(ids(batch, 1, seed=9)).copy()
    other = model(trained, **options).decoder(batch)
    assert np.array_equal(
        other.extend(np.concatenate([ids(batch, 5), ids(batch, 1, seed=9)], axis=1)), after
    )


@pytest.mark.parametrize("cell", CELLS)
def test_a_state_is_a_copy_that_goes_on_anywhere(cell: dict[str, Any]) -> None:
    made = fast(**cell, layers=2, hidden_size=16)
    decoder = made.decoder(3)
    decoder.extend(ids(3, 11))
    state = decoder.read_state()
    frozen = {name: array.copy() for name, array in state.items()}
    expected = decoder.extend(ids(3, 6, seed=1)).copy()
    assert all(np.array_equal(state[name], frozen[name]) for name in frozen), (
        "the state is a view of the decoder's"
    )
    other = made.decoder(1)
    other.write_state(state)
    assert other.batch_size == 3
    assert np.array_equal(other.extend(ids(3, 6, seed=1)), expected)
    assert all(np.array_equal(state[name], frozen[name]) for name in frozen), (
        "the decoder wrote into the state"
    )


@pytest.mark.parametrize("cell", CELLS)
def test_rows_are_forked_dropped_and_reordered(cell: dict[str, Any]) -> None:
    made = fast(**cell, layers=2, hidden_size=16)
    decoder = made.decoder(3)
    first = decoder.extend(ids(3, 11)).copy()
    state = decoder.read_state()
    for rows in ([0, 0, 0, 2], [2, 1, 0], [1], [2, 0]):
        decoder.write_state({name: array[rows] for name, array in state.items()})
        assert decoder.batch_size == len(rows)
        assert np.array_equal(decoder.extend(np.empty((len(rows), 0), np.int64)), first[rows])
        tokens = ids(len(rows), 5, seed=2)
        given = decoder.extend(tokens).copy()
        for place, row in enumerate(rows):
            alone = made.decoder(1)
            alone.extend(ids(3, 11)[row : row + 1])
            assert np.array_equal(alone.extend(tokens[place : place + 1])[0], given[place])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_rows_that_join_and_leave_stay_as_they_are_bit_for_bit(
    cell: dict[str, Any], layers: int
) -> None:
    made = fast(**cell, layers=layers, hidden_size=17)
    tokens, rest = ids(4, 12), ids(4, 9, seed=1)
    alone = []
    for row in range(4):
        decoder = made.decoder(1)
        decoder.extend(tokens[row : row + 1])
        alone.append((decoder.extend(rest[row : row + 1]).copy(), decoder.read_state()))
    first, second = made.decoder(3), made.decoder(1)
    first.extend(tokens[:3])[:] = -np.inf  # as a caller may
    second.extend(tokens[3:])
    left = first.take([2])
    first.join(second)
    assert (first.batch_size, left.batch_size) == (4, 1)
    first = first.take([3, 0, 1])
    first.join(left)
    order = [3, 0, 1, 2]
    logits, state = first.extend(rest[order]), first.read_state()
    for place, row in enumerate(order):
        assert np.array_equal(logits[place], alone[row][0][0])
        assert all(
            np.array_equal(array[place], alone[row][1][name][0]) for name, array in state.items()
        )


@pytest.mark.parametrize("hidden_size", [1, 5, 32, 33, 256, 400])
@pytest.mark.parametrize("cell", CELLS)
def test_a_row_is_the_same_in_any_batch_bit_for_bit(cell: dict[str, Any], hidden_size: int) -> None:
    made = fast(**cell, layers=2, hidden_size=hidden_size)
    tokens = ids(64, 6)
    alone = np.stack([made.decoder(1).score(tokens[row : row + 1])[0] for row in range(64)])
    for batch in (1, 2, 3, 7, 64):
        assert np.array_equal(made.decoder(batch).score(tokens[:batch]), alone[:batch])
        stepped = made.decoder(batch)
        for t in range(6):
            assert np.array_equal(stepped.extend(tokens[:batch, t : t + 1]), alone[:batch, t])


LARGE = """
import hashlib
import numpy as np
from test_decoders import fast, ids
made = fast(cell="lstm", hidden_size=512)
tokens = ids(2, 60)
alone = np.stack([made.decoder(1).score(tokens[row : row + 1])[0] for row in range(2)])
assert np.array_equal(made.decoder(2).score(tokens), alone)
print(hashlib.sha256(alone.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_large_network_gives_the_same_however_many_threads_multiply() -> None:
    """BLAS shares its products among threads, which is tried every now and then, and may be slow or fast."""
    here = Path(__file__).parent
    given = set()
    for threads in ("1", "3"):
        done = run_python(
            "-c",
            LARGE,
            folder=here,
            site=[here, here.parent],
            extra={"OPENBLAS_NUM_THREADS": threads},
        )
        assert done.returncode == 0, done.stderr
        given.add(done.stdout)
    assert len(given) == 1


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="needs the time of each thread"
)
def test_a_network_is_loaded_and_decodes_on_one_thread(tmp_path: Path) -> None:
    """BLAS's threads wait at full speed for the next product, and a training step would share the cores with them."""
    # So large that BLAS would share the product of the two matrices
    network = {
        "type": "rnn",
        "cell": "lstm",
        "hidden_size": 128,
        "embedding_size": 512,
    }  # so large that BLAS would share
    trainer = {"type": "sgd", "length": "1 step"}
    textgen.train(
        corpus="one two three " * 90, tokenizer="char", model=network, trainer=trainer
    ).save(tmp_path / "run")
    program = """
import numpy, os, sys, textgen, time
from pathlib import Path
def others():
    time.sleep(0.3)
    tasks = [task for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
before = others()
textgen.load(sys.argv[1], device="cpu").generate("one", max_new_tokens=20)
print(others() - before)
"""
    done = run_python(
        "-c", program, str(tmp_path / "run"), folder=tmp_path, extra={"OPENBLAS_NUM_THREADS": "2"}
    )
    assert float(done.stdout) < 0.01, done.stderr


@pytest.mark.parametrize("batch", [1, 3, 600])  # so many that a second thread is tried
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_going_on_greedily_is_what_single_steps_give(
    cell: dict[str, Any], layers: int, batch: int
) -> None:
    made = fast(**cell, layers=layers, hidden_size=16)
    ahead, steps = made.decoder(batch), made.decoder(batch)
    tokens, forbidden = ids(batch, 3), [0, 4]
    ahead.extend(tokens[:, :2])
    steps.extend(tokens[:, :2])
    chosen, last = [], tokens[:, 2]
    for steps_at_once in (1, 16, 16, 17):
        chosen.append(ahead.continue_greedily(last, steps_at_once, forbidden))
        last = chosen[-1][:, -1] if chosen[-1].size else last
    chosen = np.concatenate(chosen, axis=1)
    if cell["cell"] == "relu":  # whose logits could grow beyond what a float holds
        assert chosen.shape == (batch, 0)
        return
    assert chosen.shape == (batch, 50)
    fed = tokens[:, 2:]
    for column in chosen.T:
        logits = steps.extend(fed).copy()
        logits[:, forbidden] = -np.inf
        assert np.array_equal(column, logits.argmax(axis=-1))
        fed = column[:, None]
    assert np.array_equal(ahead.extend(fed), steps.extend(fed))
    for name, array in ahead.read_state().items():
        assert np.array_equal(array, steps.read_state()[name])


def test_it_goes_on_greedily_only_where_every_logit_is_finite() -> None:
    made = fast(hidden_size=8)
    decoder = made.decoder(1)
    state = decoder.read_state()
    state["hidden"][0, 0, 3] = np.nan
    decoder.write_state(state)
    assert decoder.continue_greedily(np.array([1]), 5, ()).shape == (1, 0)
    tensors = made.tensors()
    tensors["head.bias"] = tensors["head.bias"].copy()
    tensors["head.bias"][2] = np.inf
    made.load_tensors(tensors)
    assert made.decoder(2).continue_greedily(np.array([1, 2]), 5, ()).shape == (2, 0)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("cell", CELLS)
def test_the_torch_decoder_goes_on_greedily_too(
    cell: dict[str, Any], device: str, batch: int
) -> None:
    from textgen_builtins.models.rnn.torch_model import TorchDecoder

    options = {**cell, "layers": 2, "hidden_size": 16}
    trained = module(device=device, **options)
    there, here = TorchDecoder(trained, batch), model(trained, **options).decoder(batch)
    chosen = there.continue_greedily(ids(batch), 30, [0])
    expected = here.continue_greedily(ids(batch), 30, [0])
    assert np.array_equal(chosen, expected)
    assert chosen.shape[1] == (0 if cell["cell"] == "relu" else 30)
    for name, array in here.read_state().items():
        assert there.read_state()[name] == pytest.approx(array, abs=1e-5)


def test_decoders_of_one_model_share_nothing() -> None:
    made = fast(hidden_size=16)
    one, other = made.decoder(1), made.decoder(1)
    first = one.extend(ids(1, 9)).copy()
    for _ in range(3):
        other.extend(ids(1, 4, seed=5))
    again = one.extend(np.empty((1, 0), np.int64))
    assert np.array_equal(again, first)


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    options = {"cell": "gru", "hidden_size": 8}
    tensors = module(**options).tensors()
    made = make("model", "rnn", context(vocabulary=VOCABULARY), **options)
    missing = {name: array for name, array in tensors.items() if name != "head.bias"}
    for wrong, name in (
        (missing, "head.bias"),
        ({**tensors, "extra": np.zeros(1, np.float32)}, "extra"),
        ({**tensors, "head.weight": np.zeros((3, 3), np.float32)}, "head.weight"),
    ):
        with pytest.raises(ValueError, match=name):
            made.load_tensors(wrong)
        with pytest.raises(ValueError, match=name):
            module(**options).load_tensors(wrong)


@pytest.mark.parametrize("cell", CELLS)
def test_the_module_hands_out_the_same_decoder_on_a_cpu(cell: dict[str, Any]) -> None:
    options = {**cell, "layers": 2, "hidden_size": 16, "embedding_size": 4}
    trained = module(**options)
    tokens = ids(2, 20)
    assert np.array_equal(
        trained.decoder(2).score(tokens), model(trained, **options).decoder(2).score(tokens)
    )


def greedy(made: Any, count: int) -> tuple[list[int], Any]:
    """So many greedy tokens, and the log-probabilities (count, V) they were taken from."""
    decoder = made.decoder(1)
    logits = decoder.extend(np.array([[1, 2, 3]]))
    tokens, rows = [], []
    for _ in range(count):
        row = np.array(logits.cpu() if hasattr(logits, "cpu") else logits)[0]
        rows.append(log_softmax(row))
        tokens.append(int(row.argmax()))
        logits = decoder.extend(np.array([[tokens[-1]]]))
    return tokens, np.stack(rows)


@pytest.mark.gpu
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_gives_the_same_text(cell: dict[str, Any], layers: int) -> None:
    options = {**cell, "layers": layers, "hidden_size": 32}
    trained = module(**options)
    on_gpu = make("model", "rnn", context(vocabulary=VOCABULARY, device="cuda"), **options)
    on_gpu.load_tensors(trained.tensors())
    tokens, logprobs = greedy(model(trained, **options), 200)
    theirs, their_logprobs = greedy(on_gpu, 200)
    assert theirs == tokens
    assert their_logprobs == pytest.approx(logprobs, abs=1e-4)
    state = on_gpu.decoder(2).read_state()
    assert all(isinstance(array, np.ndarray) and len(array) == 2 for array in state.values())
