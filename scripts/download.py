if __name__ == "__main__":
    import sys

    from attnvgg.cli.download import main

    sys.exit(main())
