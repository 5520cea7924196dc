"""Recipes of mergekit, read strictly and turned into warmkit's own."""
