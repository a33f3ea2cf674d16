"""Training: one trainer, its losses and its optimisers."""
