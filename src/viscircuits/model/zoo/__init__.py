"""Where networks come from: by name, from a callable, with weights from a file."""
