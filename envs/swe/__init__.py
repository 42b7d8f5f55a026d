"""Software-engineering tasks: a repository with an issue, and tests that say whether it was resolved."""
