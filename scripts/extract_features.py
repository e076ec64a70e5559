if __name__ == "__main__":
    import sys

    from attnvgg.cli.extract_features import main

    sys.exit(main())
