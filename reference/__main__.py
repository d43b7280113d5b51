"""Write the pages: `python -m reference`; `--check` only says which of them no longer say what the code does."""

from __future__ import annotations

import sys

from reference.pages import PAGES, ROOT


def main() -> int:
    stale = []
    for name, write in PAGES.items():
        file, text = ROOT / "docs" / name, write()
        if not file.exists() or file.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                file.write_text(text)
    for name in stale:
        print(f"docs/{name}: {'is not what the code says' if '--check' in sys.argv else 'written'}")
    return 1 if stale and "--check" in sys.argv else 0


sys.exit(main())
