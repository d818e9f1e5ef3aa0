"""What a network is: its graph, what reaches what, and how to watch or edit a run without leaving a trace."""
