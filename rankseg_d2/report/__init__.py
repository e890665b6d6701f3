"""What is said about a model: the κ that it needs for a wanted recall, and what it costs."""
