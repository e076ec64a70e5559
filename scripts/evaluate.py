if __name__ == "__main__":
    import sys

    from attnvgg.cli.evaluate import main

    sys.exit(main())
