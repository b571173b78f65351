"""``python -m cosearch``: the command line."""

from cosearch.cli import main

if __name__ == "__main__":
    main()
