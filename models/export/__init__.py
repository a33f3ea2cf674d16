"""Export of trained models to graphs and tables."""
