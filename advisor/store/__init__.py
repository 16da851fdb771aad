"""What is written to disk and read back: packaged data, YAML files, the ledger of a study."""
