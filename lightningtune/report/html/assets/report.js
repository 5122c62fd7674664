"use strict";
(() => {
  const root = document.documentElement;
  const nonce = document.currentScript.nonce;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";

  // Figures -----------------------------------------------------------------------------------------------------------
  const plots = [...document.querySelectorAll(".plot")];
  const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };

  function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "yes";
    const figure = JSON.parse(plot.parentElement.nextElementSibling.textContent);
    figure.layout.autosize = true;
    delete figure.layout.height;  // it is the element's
    change(plot, () => Plotly.newPlot(plot, figure.data, figure.layout, config));
  }

  /** Draw or redraw one figure. Plotly fails at values that no axis can show, at once or later; the others stay. */
  async function change(plot, how) {
    if (plot.dataset.drawn !== "yes") return;
    try {
      await how();
    } catch (error) {
      plot.dataset.drawn = "failed";
      Plotly.purge(plot);
      plot.removeAttribute("style");
      plot.classList.add("fine");
      plot.textContent = `It could not be drawn: ${error.message ?? error}`;
    }
  }

  async function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = text;
    document.head.append(script);
  }

  async function drawFigures() {
    if (!plots.length) return;
    if (!("DecompressionStream" in window)) {
      for (const plot of plots) plot.textContent = "This browser is too old to unpack the figures; all else is here.";
      return;
    }
    await unpack();
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
    }, { rootMargin: "500px" });
    for (const plot of plots) seen.observe(plot);
    addEventListener("beforeprint", () => {
      for (const plot of plots) draw(plot);
      for (const plot of plots) change(plot, () => Plotly.relayout(plot, { width: 680 }));
    });
    addEventListener("afterprint", () => {
      for (const plot of plots) change(plot, () => Plotly.relayout(plot, { width: null, autosize: true }));
    });
  }

  // Light and dark ----------------------------------------------------------------------------------------------------
  const theme = document.getElementById("theme");
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.hidden = false;
  name();
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
  prefersDark.addEventListener("change", name);

  // Copying -----------------------------------------------------------------------------------------------------------
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // not every browser lets a page from disk
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  for (const button of document.querySelectorAll("[data-copy], [data-text]")) {
    button.addEventListener("click", async (event) => {
      event.preventDefault();
      await copy(button.dataset.text ?? document.getElementById(button.dataset.copy).textContent);
      document.getElementById("copied").textContent = "Copied.";
    });
  }

  // The table ---------------------------------------------------------------------------------------------------------
  const body = document.querySelector(".trials tbody");
  const rows = [...body.rows];
  const heads = [...document.querySelectorAll(".trials th")];
  const keyOf = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent;

  function compare(one, other) {
    const [a, b] = [Number(one), Number(other)];
    return Number.isNaN(a) || Number.isNaN(b) ? one.localeCompare(other, "en", { numeric: true }) : a - b;
  }

  function sortBy(column) {
    const sign = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const head of heads) head.setAttribute("aria-sort", "none");
    heads[column].setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    rows.sort((one, other) => {
      const [a, b] = [keyOf(one, column), keyOf(other, column)];
      if (a === "" || b === "") return (a === "") - (b === "");  // what is missing comes last, either way
      return sign * compare(a, b);
    });
    body.append(...rows);
  }

  function filter() {
    const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const outcome = document.getElementById("outcome").value;
    let shown = 0;
    for (const row of rows) {
      const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = (outcome && row.dataset.outcome !== outcome) || !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    document.getElementById("shown").textContent = `${shown} of ${rows.length}`;
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortBy(column));
    head.replaceChildren(button);
    if (rows.some((row) => row.cells[column].classList.contains("n"))) head.classList.add("n");
  });
  document.querySelector(".tools").hidden = false;
  for (const id of ["filter", "outcome"]) document.getElementById(id).addEventListener("input", filter);
  filter();

  drawFigures().then(() => { root.dataset.ready = "yes"; });
})();
