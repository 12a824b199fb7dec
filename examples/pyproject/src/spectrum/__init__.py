"""How much of a matrix its largest singular values tell."""

from __future__ import annotations

import numpy as np


def explained(matrix: np.ndarray, rank: int) -> float:
    """Return the share of a matrix's variance that its best approximation of a rank keeps.

    Parameters
    ----------
    matrix : ndarray of float64, shape (rows, columns)
        Any matrix without nulls; its columns are centred first.
    rank : int
        How many singular values to keep, from 1 to the smaller of the two lengths.

    Examples
    --------
    >>> explained(np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]), rank=1)
    1.0
    """
    values = np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False) ** 2
    return round(float(values[:rank].sum() / values.sum()), 12)
