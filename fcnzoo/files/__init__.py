"""Bytes, JSON and records, on disk and over http: written whole or not at all, read strictly."""
