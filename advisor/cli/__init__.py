"""The command line: options to a request, one call, a rendering. One file a verb; heavy imports wait for the call."""
