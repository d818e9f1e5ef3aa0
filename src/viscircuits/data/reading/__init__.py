"""From a picture's bytes to 8-bit RGB: formats, depth, what counts as white, and whether two readings agree."""
