"""Pictures of circuits and of their measurements: the only home of matplotlib and SVG."""
