"""Teams that learn together: exact methods for games that are known, and actor-critics for those that are played."""
