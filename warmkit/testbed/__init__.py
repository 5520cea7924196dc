"""A small world in which reward models are hacked: a language, its oracle, and tiny models that speak it."""
