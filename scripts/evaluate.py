import sys

from attnvgg.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
