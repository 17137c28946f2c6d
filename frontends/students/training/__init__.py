"""What a training is made of: data, losses, the loop, its folder, and its figures."""
