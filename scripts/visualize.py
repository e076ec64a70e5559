if __name__ == "__main__":
    import sys

    from attnvgg.cli.visualize import main

    sys.exit(main())
