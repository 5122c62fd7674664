"""Makes the pictures of these pages: ``make pictures``. It needs a browser, and takes a minute.

They are of a real study, that of ``examples/quickstart.py``, as its report shows it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = Path(__file__).parent / "pictures"
sys.path.insert(0, str(ROOT / "tests"))

from browser import find_browser, opened  # noqa: E402  # lies among the tests, which drive it

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


def main() -> None:
    """Run the study, and take the pictures of its report."""
    browser = find_browser()
    if browser is None:
        sys.exit("There is no browser: `apt-get install chromium`.")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "examples" / "quickstart.py", "--experiment_dir", folder]
        subprocess.run(command, check=True)
        (report,) = Path(folder).glob("*/report.html")
        with opened(browser) as page:
            for name, (width, height, dark, section) in SHOTS.items():
                page.open(report, width, height, dark)
                page.run(DRAWN)
                if section is not None:
                    page.run(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
                page.run("new Promise((told) => requestAnimationFrame(() => requestAnimationFrame(told)))")
                page.picture(PICTURES / name)
                print(PICTURES / name)


if __name__ == "__main__":
    main()
