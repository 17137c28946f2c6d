"""What a weight can become, and what that costs."""
