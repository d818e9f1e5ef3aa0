"""A circuit (model + target + mask), what it is given for what was removed, and the file that holds one."""
