if __name__ == "__main__":
    import sys

    from attnvgg.cli.sample import main

    sys.exit(main())
