"""Values become a runnable config: what a class accepts, and how a sampled value reaches its place."""
