"""Environments: locked, linked to one BLAS, proved, packed in layers."""
