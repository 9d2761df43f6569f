"""Routes, a file a subject. Each has a `router`; `app` takes up every file that lies here.

A file may also have `lifespan(service)`, an asynchronous context manager: entered when the service begins, left when it
ends.
"""
