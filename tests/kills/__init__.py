"""Kills: commands are killed at random moments and at chosen system calls, and given again."""
