if __name__ == "__main__":
    import sys

    from attnvgg.cli.audit import main

    sys.exit(main())
