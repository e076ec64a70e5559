if __name__ == "__main__":
    import sys

    from attnvgg.cli.drift import main

    sys.exit(main())
