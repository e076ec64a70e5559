if __name__ == "__main__":
    import sys

    from attnvgg.cli.audit_maps import main

    sys.exit(main())
