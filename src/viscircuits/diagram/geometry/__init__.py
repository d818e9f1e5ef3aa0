"""Where things stand and lines run: boxes, columns and curves in pixels; nothing here knows a circuit."""
