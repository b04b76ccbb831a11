"""python -m textgen."""

from textgen.cli import main

if __name__ == "__main__":
    main()
