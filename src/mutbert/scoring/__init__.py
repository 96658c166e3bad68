"""What predictions are worth: metrics, their intervals, and comparisons of models."""
