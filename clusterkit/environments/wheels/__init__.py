"""Environments of wheels: locked, installed to the byte, and read with a relocatable copy of their interpreter."""

from clusterkit.environments.wheels.reading import read

__all__ = ["read"]
