"""How models and circuits run over images: one loop, responses, crops, several circuits at once."""
