"use strict";
// The payload, decoded: float64 arrays travel as base64, a constant as one number.

const store = (() => {
  const raw = JSON.parse(document.getElementById("data").textContent);

  // "#3" is the fourth array of the page; one that begins with a colon has float32.
  const decoded = new Map();
  function floats(reference) {
    const place = Number(reference.slice(1));
    if (!decoded.has(place)) {
      const text = raw.arrays[place], single = text.startsWith(":");
      const bytes = Uint8Array.from(atob(single ? text.slice(1) : text), (c) => c.charCodeAt(0));
      const values = single ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer);
      decoded.set(place, Array.from(values, (v) => (Number.isFinite(v) ? v : null)));
    }
    return decoded.get(place);
  }

  function column(value, length) {
    if (value === null) return new Array(length).fill(null);
    return typeof value === "number" ? new Array(length).fill(value) : floats(value);
  }

  // A series is {last, low, high, constant}; low and high only where a point is many iterations.
  function series(value, length) {
    if (value === undefined) return null;
    if (value === null) return { last: column(null, length), constant: null, empty: true };
    if (typeof value === "number") return { last: column(value, length), constant: value };
    if (typeof value === "string") return { last: floats(value) };
    const [last, low, high] = value.map((part) => column(part, length));
    return { last, low, high };
  }

  function decode(run, index) {
    const x = floats(run.x), px = floats(run.px);
    const dash = index >= 10 ? [5, 4] : undefined;
    const whole = { ...run, index, colour: `--run-${index % 10}`, dash, x, px, shown: true };
    whole.scalars = {};
    for (const name in run.scalars) whole.scalars[name] = series(run.scalars[name], x.length);
    whole.tests = run.tests.map((test) => ({ ...test, x: floats(test.x), y: floats(test.y) }));
    whole.parameters = run.parameters.map((parameter) => {
      const figures = {};
      for (const quantity in parameter.figures) {
        figures[quantity] = {};
        for (const figure in parameter.figures[quantity]) {
          figures[quantity][figure] = series(parameter.figures[quantity][figure], px.length);
        }
      }
      const updates = {};
      for (const name in parameter.updates) {
        updates[name] = series(parameter.updates[name], px.length);
      }
      return { ...parameter, figures, updates, layer: parameter.name.replace(/\/\d+$/, "") };
    });
    return whole;
  }

  const runs = raw.runs.map(decode);
  const at = runs.flatMap((run) => [run.x, run.px, ...run.tests.map((test) => test.x)])
    .flatMap((x) => (x.length ? [x[0], x[x.length - 1]] : []))
    .concat(runs.filter((run) => run.x.length).map((run) => run.first));
  const first = at.length ? Math.min(...at) : 0, last = at.length ? Math.max(...at) : 1;
  return { runs, first, last: last > first ? last : first + 1 };
})();

// Up to seven significant digits, as in the record; no thousands separators below a million.
function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return value.toLocaleString("en");
  if (size >= 1e-4 && size < 1e7) return String(Number(value.toPrecision(7)));
  return value.toExponential(6).replace(/\.?0+e/, "e").replace("e+", "e");
}

// A line's value at a point, with the extremes of the stretch that the point stands for.
function reading(s, index) {
  const text = number(s.last[index]);
  if (!s.low || s.low[index] === s.high[index]) return text;
  return `${text} (${short(s.low[index]) || "–"} to ${short(s.high[index]) || "–"})`;
}

function short(value) {
  if (value === null || value === undefined) return "";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const name in attributes || {}) {
    if (name === "class") made.className = attributes[name];
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), attributes[name]);
    else made.setAttribute(name, attributes[name]);
  }
  made.append(...children);
  return made;
}
