if __name__ == "__main__":
    import sys

    from attnvgg.cli.serve import main

    sys.exit(main())
