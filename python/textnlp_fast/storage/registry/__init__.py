"""What is said of a model's versions once they are published: stages, aliases, tags, deployments."""
