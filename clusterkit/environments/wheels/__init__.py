"""Environments of wheels: locked, installed to the byte, and read with a relocatable copy of their interpreter."""

from clusterkit.environments.wheels.additions import beside
from clusterkit.environments.wheels.installing import install
from clusterkit.environments.wheels.locking import drift, lock, request
from clusterkit.environments.wheels.reading import read

__all__ = ["beside", "drift", "install", "lock", "read", "request"]
