// Tables that one can search and sort: every table in a `div.searchable` of a page, and the backbone table, which is
// made from coverage.json (written by `python -m benchmarks.coverage`).

/** Put a search field and a count above a table; a click on a column's title sorts by it.
 *  lines: [{ element: <tr>, keys: what to sort by (one per column), text: what to search in }] */
function makeSearchable(root, table, lines, what) {
  const search = Object.assign(document.createElement("input"), {
    type: "search",
    placeholder: `Search ${lines.length} ${what}`,
    className: "table-search",
  });
  search.setAttribute("aria-label", search.placeholder);
  const count = Object.assign(document.createElement("p"), { className: "table-count" });
  count.setAttribute("aria-live", "polite");
  const body = table.tBodies[0] ?? table.createTBody();
  const titles = [...table.tHead.rows[0].cells];
  let order = -1;
  let down = false;
  for (const line of lines) line.text = line.text.toLowerCase();
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  function draw() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = lines.filter((line) => wanted.every((word) => line.text.includes(word)));
    if (order >= 0) shown.sort((a, b) => compare(a.keys[order], b.keys[order]) * (down ? -1 : 1));
    count.textContent = `${shown.length} of ${lines.length}`;
    body.replaceChildren(...shown.map((line) => line.element));
    titles.forEach((cell, i) => {
      if (i === order) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
  }
  titles.forEach((cell, i) => {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(...cell.childNodes);
    button.addEventListener("click", () => {
      down = order === i && !down;
      order = i;
      draw();
    });
    cell.append(button);
  });
  search.addEventListener("input", draw);
  root.prepend(search, count);
  draw();
}

/** What a cell is sorted by: its first number where it begins with one, else its text. */
function sortKey(text) {
  const number = parseFloat(text);
  return Number.isNaN(number) ? text : number;
}

function readTable(root) {
  const table = root.querySelector("table");
  const lines = [...table.tBodies[0].rows].map((element) => ({
    element,
    keys: [...element.cells].map((cell) => sortKey(cell.textContent.trim())),
    text: element.textContent,
  }));
  makeSearchable(root, table, lines, root.dataset.what);
}

const HOW_DILATED = { native: "dilated by the provider", dilated: "dilated", emulated: "emulated", none: "as it is" };

/** Columns of the backbone table: title, text of a row, what to sort by. */
const BACKBONE_COLUMNS = [
  ["backbone", (r) => r.name, (r) => r.name],
  ["family", (r) => r.family.split("/")[1] ?? r.family, (r) => r.family],
  ["parameters", (r) => (r.parameters ? `${(r.parameters / 1e6).toFixed(1)} M` : "–"), (r) => r.parameters ?? 0],
  ["taps at", (r) => ["32", "16", "8"].map((l) => r.taps?.[l]?.reduction ?? "–").join(" · "), (r) => r.taps?.["8"]?.reduction ?? 0],
  ["stride 8", (r) => HOW_DILATED[r.dilation] ?? r.dilation ?? "–", (r) => r.dilation ?? ""],
  ["image", (r) => (r.fixed_size ? `resized to ${r.fixed_size.join("×")}` : `multiple of ${r.multiple}`), (r) => (r.fixed_size ? 1e4 : 0) + r.multiple],
  ["heads", (r) => Object.keys(r.heads).filter((h) => r.heads[h] === "ok").join(" "), (r) => Object.values(r.heads).filter((h) => h === "ok").length],
  ["license of the weights", (r) => r.license ?? "see the provider", (r) => r.license ?? ""],
];

async function drawBackbones(root) {
  const answer = await fetch(root.dataset.source);
  if (!answer.ok) {
    root.textContent = `The table could not be read (${answer.status}).`;
    return;
  }
  const { rows } = await answer.json();
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const [title] of BACKBONE_COLUMNS) head.append(Object.assign(document.createElement("th"), { textContent: title }));
  const lines = rows.map((row) => {
    const element = document.createElement("tr");
    const texts = BACKBONE_COLUMNS.map(([, text]) => text(row));
    texts.forEach((text, i) => {
      const cell = element.insertCell();
      if (i === 0) cell.append(Object.assign(document.createElement("code"), { textContent: text }));
      else cell.textContent = text;
    });
    if (row.note) element.title = row.note;
    return { element, keys: BACKBONE_COLUMNS.map(([, , key]) => key(row)), text: [...texts, row.note ?? ""].join(" ") };
  });
  const wrap = Object.assign(document.createElement("div"), { className: "md-typeset__scrollwrap" });
  const inner = Object.assign(document.createElement("div"), { className: "md-typeset__table" });
  inner.append(table);
  wrap.append(inner);
  root.replaceChildren(wrap);
  makeSearchable(root, table, lines, "backbones: convnext, emulated, vit 384 …");
}

document$.subscribe(() => {
  for (const root of document.querySelectorAll("div.searchable")) {
    if (!root.querySelector("input")) readTable(root);
  }
  const backbones = document.getElementById("backbone-table");
  if (backbones && !backbones.querySelector("table")) drawBackbones(backbones);
});
