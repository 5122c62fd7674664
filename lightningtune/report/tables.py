"""Tables of plain text: columns side by side, numbers to the right, cut where the terminal ends."""

from __future__ import annotations

from collections.abc import Sequence

from lightningtune.wording import printable


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), width: int | None = None
) -> str:
    """Draw a table.

    Args:
        header: the columns' names.
        rows: a text for each column.
        right: the columns that stand to the right.
        width: characters of a line; what is longer is cut. Nothing is cut when not given.

    Example:
        >>> print(table(("n", "state"), [("9", "complete"), ("10", "fail")], right=("n",)))
         n  state
         9  complete
        10  fail
    """
    lines = [[printable(" ".join(text.split()) if "\n" in text else text) for text in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = []
    for line in lines:
        cells = [
            text.rjust(size) if name in right else text.ljust(size)
            for name, text, size in zip(header, line, widths, strict=True)
        ]
        drawn.append(cut("  ".join(cells).rstrip(), width))
    return "\n".join(drawn)


def cut(line: str, width: int | None) -> str:
    """Cut a line, and show that it was.

    Example:
        >>> cut("a long line", 6)
        'a lon…'
    """
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"
