"""``python -m overload_demo`` is the ``overload-demo`` command."""

from overload_demo.cli.application import main

if __name__ == "__main__":
    main()
