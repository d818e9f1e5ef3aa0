"""The results folder of a study: what was asked, every file name, the table, which circuit is shown."""
