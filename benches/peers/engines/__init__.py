"""One module for each engine that runs in Python.

Each has a `load(options, threads)` that returns an [`Engine`](base.py). Modules are imported by
name in the worker process, so that an engine pays for its own imports and for nobody else's.
"""
