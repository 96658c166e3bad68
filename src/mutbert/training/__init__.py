"""Pre-training and fine-tuning, from a recipe to a trained model."""
