"""Why the second model takes more room."""
