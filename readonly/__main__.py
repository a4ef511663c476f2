"""`python -m readonly` is `readonlyctl`."""

from readonly.cli import main

if __name__ == "__main__":
    main()
