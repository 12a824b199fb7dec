"""Launchers: a plan becomes a YARN application."""
