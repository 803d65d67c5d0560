"""SQL from the command line: statements, how answers are written, and the interactive shell."""
