"""How much each kernel matters to a target: one published criterion a file."""
