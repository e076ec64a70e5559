import sys

from attnvgg.cli.visualize import main

if __name__ == "__main__":
    sys.exit(main())
