"""Applications: the handle of one YARN application, its end, and why it failed."""
