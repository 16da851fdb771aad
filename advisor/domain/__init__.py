"""What everybody talks about: frozen, strict models and the ports between rooms."""
