"""Measurements of the relay, each one command: `python -m bench`, `python -m bench.drain`, `python -m bench.chaos`."""
