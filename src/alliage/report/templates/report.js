"use strict";

// Light or dark: as the system says until the reader says otherwise.
{
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
    button.setAttribute("aria-pressed", String(Boolean(root.dataset.theme)));
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}

// Each figure shows the view that its selectors choose; without a view for a combination, the one
// that has the option just taken and most of the others.
for (const figure of document.querySelectorAll("figure")) {
  const selects = [...figure.querySelectorAll("select")];
  const views = [...figure.querySelectorAll(".view")].map((element) => ({
    element,
    choice: JSON.parse(element.dataset.choice),
  }));
  const option = (view, select) => view.choice[Number(select.dataset.part)];
  const show = (changed) => {
    const agreeing = (view) => selects.filter((select) => option(view, select) === select.value).length;
    const chosen = views
      .filter((view) => option(view, changed) === changed.value)
      .reduce((best, view) => (agreeing(view) > agreeing(best) ? view : best));
    for (const view of views) view.element.classList.toggle("unchosen", view !== chosen);
    for (const select of selects) select.value = option(chosen, select);
  };
  for (const select of selects) select.addEventListener("change", () => show(select));
  if (selects.length) show(selects[0]);
}

// Marks say what they are when pointed at, or reached with the arrow keys from their picture; all
// marks and rows of the same model light up with them.
{
  const tip = document.getElementById("tip");
  let active = null;
  const highlight = (model, on) => {
    if (model === undefined) return;
    for (const other of document.querySelectorAll("[data-model]")) {
      if (other.dataset.model === model) other.classList.toggle("same", on);
    }
  };
  const leave = () => {
    if (!active) return;
    active.classList.remove("active");
    highlight(active.dataset.model, false);
    active = null;
    tip.hidden = true;
  };
  const enter = (mark) => {
    if (mark === active) return;
    leave();
    active = mark;
    mark.classList.add("active");
    highlight(mark.dataset.model, true);
    if (!mark.dataset.tip) return;
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const left = box.left + box.width / 2 - tip.offsetWidth / 2;
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest?.("[data-tip], tr[data-model]");
    if (mark) enter(mark);
    else leave();
  });
  document.addEventListener("focusout", leave);
  document.addEventListener("scroll", leave, { passive: true });

  const towards = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const centre = (mark) => {
    const box = mark.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave();
    const direction = towards[event.key];
    if (!direction || !event.target.matches("svg[tabindex]")) return;
    event.preventDefault();
    const marks = [...event.target.querySelectorAll("[data-tip]")];
    if (!event.target.contains(active)) {
      if (marks.length) enter(marks[0]);
      return;
    }
    const [x, y] = centre(active);
    let nearest = null;
    let least = Infinity;
    for (const mark of marks) {
      const [u, v] = centre(mark);
      const along = (u - x) * direction[0] + (v - y) * direction[1];
      const across = Math.abs((u - x) * direction[1]) + Math.abs((v - y) * direction[0]);
      // Straight on before sideways: a step aside counts double.
      if (mark !== active && along > 0.5 && along + 2 * across < least) {
        least = along + 2 * across;
        nearest = mark;
      }
    }
    if (nearest) enter(nearest);
  });
}

// Data of a figure as CSV (RFC 4180).
for (const button of document.querySelectorAll(".save")) {
  button.addEventListener("click", () => {
    const data = JSON.parse(button.closest("figure").querySelector(".data").textContent);
    const cell = (value) => {
      const text = value === null ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = [data.columns, ...data.rows].map((row) => row.map(cell).join(","));
    const url = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = button.dataset.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
}

// Tables are sorted by a click on a heading.
for (const table of document.querySelectorAll(".sortable")) {
  const body = table.querySelector("tbody");
  const headings = [...table.querySelectorAll("thead th")];
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      // Numbers start with the highest, words with A.
      const numeric = heading.classList.contains("number");
      const before = heading.getAttribute("aria-sort");
      const order = { none: numeric ? "descending" : "ascending", ascending: "descending", descending: "ascending" }[before];
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const compare = (a, b) => {
        const [first, second] = [key(a, column), key(b, column)];
        if (first === null || second === null) return (first === null) - (second === null);
        return sign * (numeric ? first - second : first.localeCompare(second, "en", { numeric: true }));
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}

// The table of models is filtered by words that all must occur.
{
  const section = document.getElementById("models");
  const body = section.querySelector("tbody");
  const input = section.querySelector("input");
  input?.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const row of body.rows) {
      const text = [...row.cells].slice(0, 3).map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    section.querySelector("output").textContent = input.value ? `${shown} of ${body.rows.length} models` : "";
  });
}
