// The backbone table: reads coverage.json (written by `python -m benchmarks.coverage`), filters and sorts it.
document$.subscribe(async () => {
  const root = document.getElementById("backbone-table");
  if (!root || root.childElementCount) return;
  const answer = await fetch(root.dataset.source);
  if (!answer.ok) {
    root.textContent = `The table could not be read (${answer.status}).`;
    return;
  }
  const { rows } = await answer.json();
  const words = { native: "dilated by the provider", dilated: "dilated", emulated: "emulated", none: "as it is" };
  const columns = [
    ["backbone", (r) => r.name, (r) => r.name],
    ["family", (r) => r.family.split("/")[1] ?? r.family, (r) => r.family],
    ["parameters", (r) => (r.parameters ? `${(r.parameters / 1e6).toFixed(1)} M` : "–"), (r) => r.parameters ?? 0],
    ["taps at", (r) => ["32", "16", "8"].map((l) => r.taps?.[l]?.reduction ?? "–").join(" · "), (r) => r.taps?.["8"]?.reduction ?? 0],
    ["stride 8", (r) => words[r.dilation] ?? r.dilation ?? "–", (r) => r.dilation ?? ""],
    ["image", (r) => (r.fixed_size ? `resized to ${r.fixed_size.join("×")}` : `multiple of ${r.multiple}`), (r) => (r.fixed_size ? 1e4 : 0) + r.multiple],
    ["heads", (r) => Object.keys(r.heads).filter((h) => r.heads[h] === "ok").join(" "), (r) => Object.values(r.heads).filter((h) => h === "ok").length],
    ["licence of the weights", (r) => r.license ?? "see the provider", (r) => r.license ?? ""],
  ];
  const search = Object.assign(document.createElement("input"), {
    type: "search",
    placeholder: `Search ${rows.length} backbones: convnext, emulated, vit 384 …`,
    className: "backbone-search",
  });
  search.setAttribute("aria-label", "Search backbones");
  const count = document.createElement("p");
  const wrap = Object.assign(document.createElement("div"), { className: "md-typeset__scrollwrap" });
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  const body = table.createTBody();
  let order = 0;
  let down = false;
  columns.forEach(([title], i) => {
    const cell = document.createElement("th");
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: title });
    button.addEventListener("click", () => {
      down = order === i && !down;
      order = i;
      draw();
    });
    cell.append(button);
    head.append(cell);
  });
  const lines = rows.map((row) => ({
    row,
    cells: columns.map(([, text]) => text(row)),
    text: [...columns.map(([, text]) => text(row)), row.note ?? ""].join(" ").toLowerCase(),
  }));
  function draw() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const key = columns[order][2];
    const shown = lines.filter((line) => wanted.every((word) => line.text.includes(word)));
    shown.sort((a, b) => (key(a.row) < key(b.row) ? -1 : key(a.row) > key(b.row) ? 1 : 0) * (down ? -1 : 1));
    count.textContent = `${shown.length} of ${rows.length}`;
    body.replaceChildren(
      ...shown.map((line) => {
        const element = document.createElement("tr");
        line.cells.forEach((text, i) => {
          const cell = element.insertCell();
          if (i === 0) cell.append(Object.assign(document.createElement("code"), { textContent: text }));
          else cell.textContent = text;
        });
        if (line.row.note) element.title = line.row.note;
        return element;
      }),
    );
  }
  search.addEventListener("input", draw);
  wrap.append(table);
  root.append(search, count, wrap);
  draw();
});
