"""Commands that take features apart, one a file."""
