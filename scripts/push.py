if __name__ == "__main__":
    import sys

    from attnvgg.cli.push import main

    sys.exit(main())
