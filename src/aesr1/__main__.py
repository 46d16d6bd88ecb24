"""`python -m aesr1`, the same as `aesr1`."""

from aesr1.cli.main import main

if __name__ == "__main__":
    main()
