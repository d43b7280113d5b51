"""Write the pages: `python -m reference`; `--check` only says which of them no longer say what the code does."""

from __future__ import annotations

import sys

from reference.pages import PAGES, ROOT


def main() -> int:
    stale = []
    for name, write in PAGES.items():
        file, text = ROOT / name, write()
        if not file.exists() or file.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    for name in stale:
        print(f"{name}: {'is not what the code says' if '--check' in sys.argv else 'written'}")
    return 1 if stale and "--check" in sys.argv else 0


sys.exit(main())
