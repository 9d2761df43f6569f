"""Google Cloud Storage on loopback: as much of its JSON API as Google's own client uses for objects.

Buckets, objects with generations and preconditions, media, multipart and resumable uploads, ranged reads, listings in
pages, compose. ``test_discovery.py`` holds every path, parameter and field against Google's discovery document.
"""

from fakes.gcs.server import GcsFake, GcsFault

__all__ = ["GcsFake", "GcsFault"]
