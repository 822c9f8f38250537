"""`python -m fcnzoo` is `fcnzoo`."""

from fcnzoo.cli import main

if __name__ == "__main__":
    main()
