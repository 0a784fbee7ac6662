"""The only users of client libraries."""
