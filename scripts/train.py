if __name__ == "__main__":
    import sys

    from attnvgg.cli.train import main

    sys.exit(main())
