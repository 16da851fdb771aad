"""GPU memory: the law (GiB by component, phases in which a launch can die) and what is learnt from launches."""
