"""Use cases: what the command line and `from advisor import ...` offer."""
