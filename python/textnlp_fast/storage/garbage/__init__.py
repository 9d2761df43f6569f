"""Garbage collection: which versions and objects go, and how they go beside pushes. Imported by its modules' names."""
