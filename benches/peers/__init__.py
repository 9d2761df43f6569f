"""Those we measure ourselves against, each behind the same two calls."""
