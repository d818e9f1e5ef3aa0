"""What criteria are made with: passes over the images, kernel maps that are never stored, rounds under masks."""
