"""What a position sees: receptive fields, and crops on which a network computes what it computes on the whole."""
