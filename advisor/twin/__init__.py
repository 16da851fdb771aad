"""The twin: step tables, the in-flight batching scheduler in virtual time, and what they predict."""
