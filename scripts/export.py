if __name__ == "__main__":
    import sys

    from attnvgg.cli.export import main

    sys.exit(main())
