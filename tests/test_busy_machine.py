"""Writing beside other programs, which need the processors too."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import Recurrent

from textgen import threads
from textgen.gradient import ForwardDecoder


@pytest.fixture
def of_three():
    """Calls a function in a thread whose own number of torch's threads is three."""
    (pool,) = threads.worker_threads(1, each=3)
    with pool:
        yield lambda call: pool.submit(call).result()


@pytest.fixture
def count_of(monkeypatch, of_three):
    """The threads in a block, where three threads get the time of so many processors."""
    monkeypatch.setattr(threads, "_FREE", threads._FreeProcessors())

    def counted():
        with threads.free_threads():
            return torch.get_num_threads()

    def count(got):
        monkeypatch.setattr(threads, "_processors_got", lambda threads: got)
        return of_three(counted)

    return count


@pytest.mark.parametrize(
    ("got", "free"), [(3.0, 3), (2.9, 3), (2.5, 2), (2.0, 1), (1.5, 1), (0.2, 1)]
)
def test_as_many_threads_write_as_other_programs_leave_processors(count_of, got, free):
    assert count_of(got) == free


def test_they_are_counted_again_while_it_writes(count_of, monkeypatch):
    assert [count_of(1.5), count_of(3.0)] == [1, 1]  # the second time is too soon
    monkeypatch.setattr(threads, "_MEASURED_AGAIN", 0.0)
    monkeypatch.setattr(threads, "_FREE", threads._FreeProcessors())
    assert [count_of(got) for got in (1.5, 3.0, 2.5, 0.5)] == [1, 3, 2, 1]


def test_a_small_module_writes_in_one_thread_and_leaves_all_their_numbers(of_three):
    seen, before = [], torch.get_num_threads()

    class Watched(Recurrent):
        def forward(self, tokens, state=None):
            seen.append(torch.get_num_threads())
            with ThreadPoolExecutor(1) as another:  # one that begins meanwhile
                seen.append(another.submit(torch.get_num_threads).result())
            return super().forward(tokens, state)

    decoder = ForwardDecoder(Watched(9), 2)
    of_three(lambda: decoder.extend(np.zeros((2, 1), np.int64)))
    assert seen == [1, before]
    assert of_three(torch.get_num_threads) == 3
    assert torch.get_num_threads() == before


def test_the_threads_that_are_counted_get_a_processor_at_least_now_and_then(of_three):
    assert 0 < of_three(lambda: threads._processors_got(3)) < 4


def test_products_of_matrices_keep_to_the_number(of_three):
    """MKL has a number of its own, once a program has set torch's."""

    def product_threads():
        matrix = torch.ones(600, 600)
        with threads.free_threads(weights=1):
            matrix @ matrix
            if torch.backends.mkl.is_available():
                return int(threads._thread_setters()[1](1))
        return 1

    assert of_three(product_threads) == 1
