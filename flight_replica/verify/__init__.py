"""Comparing one table of two servers at one common seq, by digests of key ranges."""
