"""Makes the pictures of these pages: ``make pictures``. It needs a browser, and takes two minutes.

They are of real studies: of ``examples/lightning_cli`` in a terminal, and of ``examples/quickstart.py`` in the others.
"""

import contextlib
import fcntl
import html
import os
import re
import struct
import subprocess
import sys
import sysconfig
import tempfile
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[1]
PICTURES = Path(__file__).parent / "pictures"
COMMAND = str(Path(sysconfig.get_path("scripts"), "lightningtune"))
sys.path.insert(0, str(ROOT / "tests"))

from browser import Page, find_browser, opened  # noqa: E402  # lies among the tests, which drive it

COLUMNS, LINES = 100, 20
TUNE = (
    "tune --cli train.py --config config.yaml --space space.yaml --metric val_acc --direction maximize "
    "--study_name digits --n_trials 30 --n_jobs 3 --trainer.max_epochs 30"
)
SHOTS = {
    # name: width, height, dark, from which section on
    "report.png": (1120, 940, False, None),
    "report-figures.png": (1120, 1180, True, "parallel"),
    "report-phone.png": (400, 860, False, None),
}
DRAWN = """(async () => {
    for (const plot of document.querySelectorAll(".plot")) {
        plot.scrollIntoView({behavior: "instant"});
        while (!plot.dataset.drawn) await new Promise((told) => setTimeout(told, 20));
    }
    scrollTo({top: 0, behavior: "instant"});
})()"""
COLOURS = {
    "default": "#d6d9de",
    "black": "#6b7280",
    "red": "#f27b7b",
    "green": "#7bd88f",
    "brown": "#e5c07b",
    "blue": "#6fb3f2",
    "magenta": "#c792ea",
    "cyan": "#6fd3d8",
    "white": "#f5f6f7",
}
HTML = """<!doctype html><html data-ready="yes"><meta charset="utf-8"><body style="margin: 0; background: #1c1f26">
<pre style="margin: 16px 18px; font: 14px/1.3 'DejaVu Sans Mono', monospace; color: {colour}">{text}</pre>"""


def screens(command: Sequence[str], cwd: Path) -> Iterator[pyte.Screen]:
    """Run a command in a terminal, and give out its screen each time that something has been written."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment)
    os.close(theirs)
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    with contextlib.suppress(OSError):  # it has ended, and nobody has the other end open any more
        while written := os.read(ours, 65536):
            stream.feed(written)
            yield screen
    os.close(ours)
    assert process.wait() == 0


def as_page(screen: pyte.Screen) -> str:
    """Write what is on a terminal's screen as a page."""
    lines = []
    for number in range(LINES):
        letters = [screen.buffer[number][column] for column in range(COLUMNS)]
        lines.append("".join(map(_as_html, letters)).rstrip())
    return HTML.format(colour=COLOURS["default"], text="\n".join(lines))


def _as_html(letter: pyte.screens.Char) -> str:
    if letter.fg == "default" and not letter.bold:
        return html.escape(letter.data)
    colour = COLOURS.get(letter.fg.removeprefix("bright"), f"#{letter.fg}")
    return (
        f'<span style="color: {colour}; font-weight: {700 if letter.bold else 400}">{html.escape(letter.data)}</span>'
    )


def take_terminal(page: Page, folder: Path) -> None:
    """Take the picture of a study in a terminal, when two thirds of it are done."""
    drawn = folder / "terminal.html"
    for screen in screens([COMMAND, *TUNE.split(), "--experiment_dir", str(folder)], ROOT / "examples/lightning_cli"):
        if not drawn.exists() and any(re.match("2[0-9]/30 trials", line) for line in screen.display):
            drawn.write_text(as_page(screen))
    page.open(drawn, 880, 400)
    take(page, "terminal.png")


def take_report(page: Page, folder: Path) -> None:
    """Take the pictures of a report."""
    for name, (width, height, dark, section) in SHOTS.items():
        page.open(folder / "quickstart" / "report.html", width, height, dark)
        page.run(DRAWN)
        if section is not None:
            page.run(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
        take(page, name)


def take(page: Page, name: str) -> None:
    """Take a picture, once the page is drawn."""
    page.run("new Promise((told) => requestAnimationFrame(() => requestAnimationFrame(told)))")
    page.picture(PICTURES / name)
    print(PICTURES / name)


def main() -> None:
    """Run the studies, and take their pictures."""
    browser = find_browser()
    if browser is None:
        sys.exit("There is no browser: `apt-get install chromium`.")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, opened(browser) as page:
        folder = Path(name)
        subprocess.run([sys.executable, ROOT / "examples/quickstart.py", "--experiment_dir", folder], check=True)
        take_terminal(page, folder)
        take_report(page, folder)


if __name__ == "__main__":
    main()
