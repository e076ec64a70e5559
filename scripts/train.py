import sys

from attnvgg.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
