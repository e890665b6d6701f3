"""What is said about a trained model: which κ it needs for a wanted recall, and at what cost."""
