"""Every family's programs compiled for TPUs that are not here, and what they move: the tables of docs/aot.md."""
