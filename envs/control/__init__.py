"""Control: environments of Gymnasium."""
