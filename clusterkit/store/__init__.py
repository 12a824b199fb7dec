"""The content-addressed home of layers and manifests: a directory, or HDFS.

Both have the same layout, below a root that all users of a cluster share:

======================================  =============================================================
`layers/<digest>.tar.zst`, `.tar.gz`    layers, named by the digest of what they hold; for everybody
`bare/<digest>.tar.gz`                  the bare interpreters that unpack them; for everybody
`images/<id>/manifest.json`             what an image consists of; there once all its layers are
`names/<user>/<name>.json`              which image an environment's name means, and meant before
`uses/<user>/<id>.<key>.json`           that a user has put or launched an image, when last, with which files
`users/<user>/layers/...`               the user's own code, for nobody else
`sweeps/...`, `trash/<user>/...`         what a collection of garbage is about to delete
======================================  =============================================================

Nothing in it is ever changed in place but names and the times of uses: a job that runs keeps what it started with.
"""
