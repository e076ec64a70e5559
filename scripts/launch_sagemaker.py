if __name__ == "__main__":
    import sys

    from attnvgg.cli.launch_sagemaker import main

    sys.exit(main())
