"""``python -m retsam`` is the command ``retsam``."""

from retsam.cli import main

main()
