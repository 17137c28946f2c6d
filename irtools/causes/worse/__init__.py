"""Why the second model gives other answers."""
