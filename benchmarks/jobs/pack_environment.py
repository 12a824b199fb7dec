"""Read an environment, pack it with a project into a store, and put the manifest beside the layers.

Usage: pack_environment.py prefix|venv ENVIRONMENT PROJECT STORE CACHE
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import msgspec

from clusterkit.environments import code, conda, pack, wheels

kind, environment, project, store, cache = sys.argv[1], *map(Path, sys.argv[2:])
tree = conda.read(environment) if kind == "prefix" else wheels.read(environment, cache_dir=cache)
tree = dataclasses.replace(tree, code=(code.folder(project),))
manifest = pack.pack(tree, lock_digest="", name="benchmark", blas="", proof=None, into=store)
(store / "layers" / "manifest.json").write_bytes(msgspec.json.encode(manifest))
