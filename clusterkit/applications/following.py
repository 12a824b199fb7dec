"""Follow the driver's standard output where the driver runs on the cluster."""
