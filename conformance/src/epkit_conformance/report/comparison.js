"use strict";
const $ = (query, from = document) => from.querySelector(query);

/* ---- the matrix: only what differs, or all ---- */
const differing = $("#differing");
if (differing) {
  differing.onchange = () => document.body.classList.toggle("everything", !differing.checked);
}

/* ---- case by case ---- */
const held = $("#data");
const filters = $("#filters");
const list = (data) => {
  const STEP = 100;
  let shown = STEP;
  const { text, level, left, right, same } = filters.elements;
  for (const n of new Set(data.rows.map((row) => row[1]))) level.add(new Option(`level ${n}`, n));
  [left, right].forEach((choice, side) => {
    data.states.forEach(([name], index) => {
      if (data.rows.some((row) => row[2 + side] === index)) {
        choice.add(new Option(`${data.sides[side]}: ${name}`, index));
      }
    });
  });

  const chosen = () => {
    const words = text.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    return data.rows.filter((row) => {
      if (!same.checked && row[2] === row[3]) return false;
      if (level.value !== "" && row[1] !== +level.value) return false;
      if (left.value !== "" && row[2] !== +left.value) return false;
      if (right.value !== "" && row[3] !== +right.value) return false;
      const whole = `${row[0]} ${data.details[row[4]]} ${data.details[row[5]]}`.toLowerCase();
      return words.every((word) => whole.includes(word));
    });
  };

  const make = (tag, content, style) => {
    const element = document.createElement(tag);
    if (style) element.className = style;
    if (content !== undefined) element.append(content);
    return element;
  };

  const side = (state, detail) => {
    const cell = make("td");
    const [word, style] = state < 0 ? ["no case", "un"] : data.states[state];
    cell.append(make("span", word, `pill ${style}`));
    if (data.details[detail]) cell.append(make("small", data.details[detail]));
    return cell;
  };

  const draw = () => {
    const rows = chosen();
    const head = make("tr");
    for (const name of ["case", ...data.sides]) head.append(make("th", name));
    const body = make("tbody");
    for (const row of rows.slice(0, shown)) {
      const line = make("tr");
      const name = make("td");
      name.append(make("b", row[0]));
      line.append(name, side(row[2], row[4]), side(row[3], row[5]));
      body.append(line);
    }
    const top = make("thead");
    top.append(head);
    $("#list").replaceChildren(top, body);
    $("output", filters).textContent = `${rows.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} cases`;
    $("#more").hidden = rows.length <= shown;
  };

  filters.addEventListener("input", () => {
    shown = STEP;
    draw();
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  $("#more").onclick = () => {
    shown += STEP;
    draw();
  };
  draw();
};
if (held && filters) unpack(held.textContent).then(list, untold);
