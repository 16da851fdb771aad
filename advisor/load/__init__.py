"""advisor's own streaming load client, the one ruler, and the engine's own benchmark beside it as referee."""
