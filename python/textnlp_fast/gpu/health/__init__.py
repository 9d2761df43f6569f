"""Whether GPUs are well: what was read, what it means, and what to do about it."""
