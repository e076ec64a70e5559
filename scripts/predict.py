if __name__ == "__main__":
    import sys

    from attnvgg.cli.predict import main

    sys.exit(main())
