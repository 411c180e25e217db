"""``python -m charlm_fast COMMAND``: the ``charlm`` command where its script is not on PATH."""

from charlm_command import main

if __name__ == "__main__":
    main()
