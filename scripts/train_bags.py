if __name__ == "__main__":
    import sys

    from attnvgg.cli.train_bags import main

    sys.exit(main())
