"""Experiments with language agents that learn, each reproduced by one command."""
