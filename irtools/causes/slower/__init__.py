"""Why the second model takes longer."""
