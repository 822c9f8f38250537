"""Measurements that print tables, and the tables the package carries."""
