"""`python -m warmkit`."""

from warmkit.cli.app import main

main()
