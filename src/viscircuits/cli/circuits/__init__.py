"""Commands that find, measure, draw and tell circuits, one a file."""
