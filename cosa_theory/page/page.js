// Tables that sort, filter and leave as CSV, and where one is on the page. Without scripts the
// tables are what they are. No library, no request; text only ever becomes text.

const UNITS = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The number of a cell: in full where the page has it, else as it is read; NaN if there is none.
function numberOf(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const found = /^[≥<≤> ]*([-−]?[\d,]*\.?\d+(?:e[-−+]?\d+)?)(?: ?(B|kB|MB|GB|TB)\b)?/.exec(cell.textContent);
  if (!found) return NaN;
  return Number(found[1].replaceAll(",", "").replaceAll("−", "-")) * (UNITS[found[2]] ?? 1);
}

// Rows without a value stay last in both orders.
function compare(first, second, numeric, sign) {
  if (!numeric) return sign * first.textContent.localeCompare(second.textContent, "en", { numeric: true });
  const [one, other] = [numberOf(first), numberOf(second)];
  if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other);
  return sign * (one - other);
}

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, place) => {
    const button = make("button", { type: "button", className: "sort" });
    button.append(...head.childNodes);
    if (!button.textContent) button.setAttribute("aria-label", `column ${place + 1}`);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const order = next[head.getAttribute("aria-sort") ?? "none"];
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      if (order !== "none") head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const numeric = original.some((row) => !Number.isNaN(numberOf(row.cells[place]))) &&
        !head.classList.contains("text");
      const sorted = order === "none" ? original : [...original].sort(
        (one, other) => compare(one.cells[place], other.cells[place], numeric, sign));
      body.append(...sorted);
    });
  });
}

function shownRows(table) {
  return [...table.tBodies[0].rows].filter((row) => !row.hidden);
}

function filterOf(table, title) {
  const total = table.tBodies[0].rows.length;
  const said = make("output", { textContent: `${total} rows` });
  const field = make("input", { type: "search", placeholder: "Filter rows" });
  field.setAttribute("aria-label", `Filter the rows of: ${title}`);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const left = shownRows(table).length;
    said.textContent = left === total ? `${total} rows` : `${left} of ${total} rows`;
  });
  return [said, field];
}

// A spreadsheet would compute a text that begins like a formula: names come from outside.
function quoted(text, isText) {
  const safe = isText && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csvOf(table) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const names = heads.map((head) => quoted((head.dataset.group ?? "") + head.textContent.trim(), true));
  const lines = shownRows(table).map((row) => [...row.cells].map((cell, place) =>
    cell.dataset.value ?? quoted(cell.innerText.trim(), heads[place].classList.contains("text"))));
  return [names, ...lines].map((line) => line.join(",")).join("\r\n") + "\r\n";
}

function download(name, text) {
  // The mark at its beginning tells a spreadsheet that this is UTF-8.
  const address = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

for (const region of document.querySelectorAll(".scroll")) {
  const table = region.querySelector("table");
  const title = region.getAttribute("aria-label");
  sortable(table);
  const name = title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  const csv = make("button", { type: "button", textContent: "CSV" });
  csv.setAttribute("aria-label", `Download as CSV: ${title}`);
  csv.addEventListener("click", () => download(`${name || "table"}.csv`, csvOf(table)));
  const few = table.tBodies[0].rows.length < 6;
  const tools = few ? [csv] : [...filterOf(table, title), csv];
  if (table.caption) {
    table.caption.hidden = true; // it stands in line with the tools
    tools.unshift(make("b", { textContent: title }));
  }
  region.before(make("div", { className: "tools" }, ...tools));
}

// The link to the section that is read is marked.
const links = new Map([...document.querySelectorAll("nav a")].map((one) => [one.hash.slice(1), one]));
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -70% 0px" });
links.forEach((_, id) => watch.observe(document.getElementById(id)));
