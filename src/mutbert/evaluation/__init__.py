"""The published benchmarks, and one's own: tasks, models and seeds as a grid whose results can be trusted."""
