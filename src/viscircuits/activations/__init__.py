"""What happens at the places of a module: maps, top activations, positions, crops, agreement."""
