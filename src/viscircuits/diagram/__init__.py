"""Pictures of what was measured: the only home of matplotlib."""
