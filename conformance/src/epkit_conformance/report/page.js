"use strict";
const $ = (query, from = document) => from.querySelector(query);
const held = $("#data");

/* ---- the operator matrix ---- */
const operators = $("#operators");
if (operators) {
  const rows = [...document.querySelectorAll(".matrix tbody tr")];
  const show = () => {
    const text = $("input[type=search]", operators).value.trim().toLowerCase();
    const wanted = [...operators.querySelectorAll(":checked")].map((box) => box.value);
    let count = 0;
    for (const row of rows) {
      const states = row.dataset.s.split(" ");
      row.hidden =
        !row.dataset.o.toLowerCase().includes(text) ||
        (wanted.length > 0 && !wanted.some((state) => states.includes(state)));
      count += row.hidden ? 0 : 1;
    }
    $("output", operators).textContent = `${count} of ${rows.length} operators`;
  };
  operators.addEventListener("input", show);
  operators.addEventListener("submit", (event) => event.preventDefault());
  show();
}

/* ---- the list of cases ---- */
const filters = $("#filters");
const list = (data) => {
  const bytes = (n) => {
    if (n === null) return "";
    for (const unit of ["B", "kB", "MB", "GB"]) {
      if (n < 1000 || unit === "GB") return `${+n.toPrecision(3)} ${unit}`;
      n /= 1000;
    }
  };
  const seconds = (s) =>
    s === null ? "" : s >= 1 ? `${s.toFixed(1)} s` : s >= 1e-3 ? `${+(s * 1e3).toPrecision(3)} ms` : `${+(s * 1e6).toPrecision(3)} µs`;
  const ratio = (row) => (row[11] === null || !row[12] ? null : row[11] / row[12]);
  const columns = [
    ["case", (r) => r[0], null],
    ["state", (r) => r[5], null],
    ["time", (r) => r[7], seconds],
    ["latency", (r) => r[8], seconds],
    ["copied", (r) => r[9], bytes],
    ["peak", (r) => r[10], bytes],
    ["error / budget", ratio, null],
  ];
  const STEP = 100;
  let shown = STEP;
  let order = null; /* [column, direction] */
  let place = null; /* operator, version, element type */

  const { text, level, state } = filters.elements;
  for (const n of new Set(data.rows.map((row) => row[1]))) level.add(new Option(`level ${n}`, n));
  data.states.forEach(([name], index) => {
    if (data.rows.some((row) => row[5] === index)) state.add(new Option(name, index));
  });

  const chosen = () => {
    const words = text.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const rows = data.rows.filter((row) => {
      if (level.value !== "" && row[1] !== +level.value) return false;
      if (state.value !== "" && row[5] !== +state.value) return false;
      if (place && (row[2] !== place[0] || row[3] !== place[1] || row[4] !== place[2])) return false;
      if (!words.length) return true;
      const whole = `${row[0]} ${row[2]} ${row[4]} ${data.details[row[6]]} ${data.oracles[row[13]]}`.toLowerCase();
      return words.every((word) => whole.includes(word));
    });
    if (order) {
      const [column, direction] = order;
      const key = columns[column][1];
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return (x < y ? -1 : x > y ? 1 : 0) * direction;
      });
    }
    return rows;
  };

  const make = (tag, content, style) => {
    const element = document.createElement(tag);
    if (style) element.className = style;
    if (content !== undefined) element.append(content);
    return element;
  };

  const draw = () => {
    const rows = chosen();
    const table = $("#list");
    const head = make("tr");
    columns.forEach(([name], index) => {
      const cell = make("th", name, index > 1 ? "n" : "");
      cell.tabIndex = 0;
      if (order && order[0] === index) cell.dataset.sort = order[1] > 0 ? "▲" : "▼";
      cell.onclick = () => {
        const first = index > 1 ? -1 : 1;
        order = order && order[0] === index ? (order[1] === first ? [index, -first] : null) : [index, first];
        draw();
      };
      cell.onkeydown = (event) => event.key === "Enter" && cell.onclick();
      head.append(cell);
    });
    const body = make("tbody");
    for (const row of rows.slice(0, shown)) {
      const line = make("tr");
      const name = make("td");
      name.append(make("b", row[0]));
      const detail = data.details[row[6]];
      if (detail) name.append(make("small", detail));
      const oracle = data.oracles[row[13]];
      if (oracle) name.append(make("small", `against: ${oracle}`, "oracle"));
      const [word, style] = data.states[row[5]];
      const cell = make("td", make("span", word, `pill ${style}`));
      line.append(name, cell);
      for (const [, value, format] of columns.slice(2, 6)) line.append(make("td", format(value(row)), "n"));
      line.append(make("td", row[11] === null ? "" : `${row[11]} / ${row[12]}`, "n"));
      body.append(line);
    }
    const top = make("thead");
    top.append(head);
    table.replaceChildren(top, body);
    const where = place ? ` of ${place.join(" ")} ×` : "";
    $("output", filters).textContent = `${rows.length.toLocaleString("en")} cases${where}`;
    $("#more").hidden = rows.length <= shown;
  };

  const restart = () => {
    shown = STEP;
    draw();
  };
  filters.addEventListener("input", restart);
  filters.addEventListener("submit", (event) => event.preventDefault());
  $("output", filters).onclick = () => {
    place = null;
    restart();
  };
  $("#more").onclick = () => {
    shown += STEP;
    draw();
  };
  const matrix = $(".matrix");
  if (matrix) {
    matrix.addEventListener("click", (event) => {
      if (event.target.tagName !== "I") return;
      const [name, version, dtype] = event.target.title.split(":")[0].split(" ");
      place = [name, +version, dtype || ""];
      text.value = level.value = state.value = "";
      restart();
      $("#cases").scrollIntoView({ behavior: "smooth" });
    });
  }
  draw();
};
if (held && filters) unpack(held.textContent).then(list, untold);
