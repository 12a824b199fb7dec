from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clusterkit.environments import proof
from clusterkit.environments.manifest import Manifest, Proof
from clusterkit.errors import ImageError
from clusterkit.node import first_use, proving
from clusterkit.node.errors import NodeError

LIB = "/image/lib/python3.11/site-packages"
MKL = "/image/lib/libmkl_rt.so.3"
OURS = f"{LIB}/numpy.libs/libclusterkit_mkl64_-32a4.so"
THEIRS = f"{LIB}/numpy.libs/libscipy_openblas64_-32a4.so"


@pytest.mark.parametrize(
    ("mapped", "blas"),
    [
        ([OURS, MKL], "mkl"),
        ([THEIRS], "openblas"),
        ([THEIRS, MKL], "openblas"),
        ([OURS, MKL, THEIRS], "mkl+openblas"),
        (["/image/lib/libmkl_rt.so.2", "/image/lib/libblas.so.3"], "mkl"),
        (["/usr/lib/x86_64-linux-gnu/libopenblas.so.0"], "openblas"),
        (["/usr/lib/libblas.so.3", "/usr/lib/liblapack.so.3"], "netlib"),
        (["/usr/lib/libc.so.6"], ""),
    ],
)
def test_blas_is_told_by_what_is_mapped(mapped, blas):
    """MKL is in use where the forwarder is mapped; beside OpenBLAS alone it serves accelerations."""
    assert proving.blas_in_use(mapped) == blas


def test_another_blas_is_named():
    """The wrong BLAS is a fault that names what was mapped."""
    faults = proving._wrong_blas("openblas", "mkl", [THEIRS, "/lib/libgomp.so.1"])
    assert faults == ["NumPy uses openblas; mapped: libscipy_openblas64_-32a4.so"]


def test_library_that_is_mapped_and_never_used_is_no_proof():
    """MKL that loaded none of its kernels has computed nothing."""
    (fault,) = proving._wrong_blas("mkl", "mkl", [OURS, MKL])
    assert "none of its kernels" in fault


@pytest.mark.parametrize(
    ("errors", "wrong"),
    [
        ({"gemm": 1e-15, "cdotc": 1e-7, "cladiv": 1e-8}, []),
        ({"gemm": 1e-7}, ["gemm is wrong: its relative error is 1.0e-07"]),
        ({"zdotc": float("inf")}, ["zdotc is wrong: its relative error is inf"]),
        ({"snrm2": float("nan")}, ["snrm2 is wrong: its relative error is nan"]),
    ],
)
def test_wrong_numbers_are_faults(errors, wrong):
    """Single precision may be off by more than double precision; what is no number is wrong."""
    assert proving._wrong(errors) == wrong


def test_environment_without_numpy_has_nothing_to_prove(tmp_path):
    """The proof of an environment without NumPy claims nothing."""
    python = tmp_path / "bin" / "python3.11"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nshift\nexec "{sys._base_executable}" -I -S "$@"\n')
    python.chmod(0o755)
    found = proof.prove(tmp_path, "bin/python3.11", blas=None)
    assert (found.blas, found.checks, found.libraries, found.notes) == ("", {}, (), ())


def test_python_that_does_not_run_is_refused(tmp_path):
    """An environment whose Python fails is refused with what it wrote."""
    python = tmp_path / "bin" / "python3.11"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 'libx.so: cannot open' >&2\nexit 127\n")
    python.chmod(0o755)
    with pytest.raises(ImageError) as caught:
        proof.prove(tmp_path, "bin/python3.11", blas="mkl")
    assert "ended with 127" in caught.value.why
    assert "libx.so: cannot open" in caught.value.why


@pytest.mark.parametrize(
    ("claimed", "shown"), [("mkl", None), ("mkl", "openblas"), ("auto", "netlib"), ("openblas", "mkl")]
)
def test_image_that_claims_without_proof_is_refused(claimed, shown):
    """A BLAS that nobody saw in use is not claimed."""
    with pytest.raises(ImageError, match="it claims"):
        proof.check(_manifest(claimed, shown))


@pytest.mark.parametrize(
    ("claimed", "shown"), [("", None), ("mkl", "mkl"), ("auto", "openblas"), ("auto", "mkl"), ("mkl", "")]
)
def test_image_with_its_proof_is_used(claimed, shown):
    """An image that shows what it claims, claims nothing, or has nothing that computes, is fine."""
    proof.check(_manifest(claimed, shown))


def test_node_does_nothing_for_an_image_without_numpy(tmp_path):
    """Where there is nothing to prove, no program is started."""
    assert first_use.prove(str(tmp_path), "/no/python", blas="mkl", proof={"blas": ""}, said=_silent) == {}


def test_nothing_is_chosen_where_libblas_decides(tmp_path):
    """An image without a forwarder beside OpenBLAS leaves no choice, whatever it was asked for."""
    assert first_use.choose(str(tmp_path), "/no/python3.11", blas="auto", accelerate=[], said=_silent) == {}


def test_node_refuses_an_image_that_does_not_compute(tmp_path):
    """What fails on a node is told in three sentences, and nothing is marked as proved."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho illegal instruction >&2\nexit 132\n")
    python.chmod(0o755)
    with pytest.raises(NodeError) as caught:
        first_use.prove(str(tmp_path), str(python), blas="mkl", proof={"blas": "mkl"}, said=_silent)
    assert caught.value.why == "illegal instruction"
    assert list(Path(tmp_path, ".clusterkit").iterdir()) == []


def _manifest(claimed: str, shown: str | None) -> Manifest:
    seen = None if shown is None else Proof(blas=shown)
    return Manifest(
        name="n", python="3.11.7", platform="linux-64", glibc="2.28", lock="", layers=(), blas=claimed, proof=seen
    )


def _silent(_stage: str, _detail: str) -> None: ...
