"""`python -m xkd`."""

from xkd.forkserver import hand_over

hand_over()

from xkd.cli import main  # noqa: E402 (not where the server runs the command)

main()
