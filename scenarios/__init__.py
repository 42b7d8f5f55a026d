"""Arena's scenarios: YAML files, each runnable by name."""
