import sys

from attnvgg.cli.download import main

if __name__ == "__main__":
    sys.exit(main())
