"""One BLAS for an environment: NumPy's and SciPy's wheels linked to MKL without a compiler, and accelerations."""

from clusterkit.environments.blas.linking import link

__all__ = ["link"]
