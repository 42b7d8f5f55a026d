"""The client of the remote API: thin synchronous and asynchronous drivers over one core without I/O."""
