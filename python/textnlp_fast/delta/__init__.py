"""Which tensor against which base, into which bytes."""
