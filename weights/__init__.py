"""Trained models: `manifest.json` and a folder a model. Data only."""
