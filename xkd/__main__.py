"""`python -m xkd`."""

from xkd.cli import main

main()
