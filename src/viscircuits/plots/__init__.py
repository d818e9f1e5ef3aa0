"""Figures: curves, surfaces, contact sheets, plates, and scenes as pixels; the only home of matplotlib. Data only."""
