"""Mutations of files that warmkit reads: every one is read as its own reference reader reads it, or refused in a line."""
