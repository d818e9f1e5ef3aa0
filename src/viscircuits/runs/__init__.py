"""From a question to results: a sweep into a study, and a study with its model and pictures again."""
