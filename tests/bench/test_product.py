"""The matrix product that a bench's figures are shares of."""

from __future__ import annotations

import numpy as np

from zoo.bench.product import gflops, matrix_products


def test_every_library_multiplies_the_matrices() -> None:
    for product in matrix_products():
        [found] = product() if isinstance(product(), list) else [product()]
        assert found.shape == (1024, 1024)
        assert (found == np.float32(1024)).all()


def test_the_fastest_counts() -> None:
    assert gflops([lambda: None]) > gflops(matrix_products()) > 0
