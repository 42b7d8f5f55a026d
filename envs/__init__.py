"""Arena's environments: one folder a family, one module an environment, found by id through the registry."""
