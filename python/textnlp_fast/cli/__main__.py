"""`python -m textnlp_fast.cli`."""

from textnlp_fast.cli import main

main()
