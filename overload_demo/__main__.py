"""``python -m overload_demo`` is the ``overload-demo`` command."""

from overload_demo.cli import main

if __name__ == "__main__":
    main()
