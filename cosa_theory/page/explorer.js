// Charts that follow the choices above them, and choices that follow a click on a chart.

const { choices, charts, tables, told, config } = JSON.parse(document.getElementById("explorer-data").textContent);
const section = document.getElementById("explore");
const fields = new Map(choices.map((one) => [one.name, document.getElementById(`choice-${one.name}`)]));
const kinds = new Map(choices.map((one) => [one.name, one]));
const views = [];

const valueOf = (name) => kinds.get(name).options[fields.get(name).selectedIndex];

// Offer the options that belong to what was chosen elsewhere, and choose the first if need be.
function narrow() {
  for (const field of fields.values()) {
    const within = field.dataset.within;
    if (!within) continue;
    const wanted = valueOf(within);
    for (const option of field.options) {
      option.hidden = option.disabled = wanted !== "" && option.dataset.place !== wanted;
    }
    if (field.selectedOptions[0]?.disabled) {
      field.selectedIndex = [...field.options].findIndex((one) => !one.disabled);
    }
  }
}

// An empty value is "all": every row agrees with it, and with a choice that it knows nothing of.
function tell() {
  const chosen = choices.map((one) => [one.name, valueOf(one.name)]);
  const row = (tables[told] ?? []).find((one) =>
    chosen.every(([name, value]) => value === "" || (one[name] ?? value) === value));
  document.getElementById("told").textContent = row?.says ?? "";
  if (!fields.has("layer")) return;
  for (const line of document.querySelectorAll("tbody tr")) {
    line.classList.toggle("chosen", line.cells[0].textContent === valueOf("layer"));
  }
}

async function follow() {
  narrow();
  tell();
  for (const view of views) {
    for (const name of fields.keys()) {
      if (name in view.getState().signals) view.signal(name, valueOf(name));
    }
  }
  await Promise.all(views.map((view) => view.runAsync()));
  // What a layer has nothing of is no picture without a name.
  for (const marks of section.querySelectorAll("svg [aria-roledescription$='mark container']")) {
    marks.ariaHidden = marks.childElementCount ? null : "true";
  }
  section.dataset.shown = [...fields.keys()].map(valueOf).join(" · ");
}

// A click on a mark chooses what it stands for.
function choose(datum) {
  for (const [name, field] of fields) {
    const place = kinds.get(name).options.indexOf(datum?.[name]);
    if (place >= 0 && (name !== "module" || valueOf("module") !== "")) field.selectedIndex = place;
  }
  follow();
}

section.hidden = false;
for (const [place, spec] of charts.entries()) {
  const { view } = await window.vegaEmbed(`#chart-${place} .canvas`, { ...spec, datasets: tables }, {
    ast: true, // expressions are interpreted: nothing is compiled, and the page forbids it
    actions: false,
    config,
    logLevel: 1, // errors: that a layer has no edge of noise is nothing to warn of
    renderer: "svg",
  });
  view.addEventListener("click", (_, item) => item?.datum && choose(item.datum));
  views.push(view);
}
fields.forEach((field) => field.addEventListener("change", follow));
await follow();
