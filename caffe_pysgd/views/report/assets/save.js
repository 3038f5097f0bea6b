"use strict";
// Any chart as a file: an SVG drawn anew from its values, or the same as a PNG.

const FONT = "Inter, system-ui, 'Liberation Sans', sans-serif";

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const name in attributes || {}) {
    if (attributes[name] !== undefined && attributes[name] !== null) made.setAttribute(name, attributes[name]);
  }
  made.append(...children);
  return made;
}

function saving(title, draw) {
  const button = (kind, save) => element("button", {
    type: "button", class: "scale save", title: `save as ${kind}`, "aria-label": `${title}: save as ${kind}`,
    onclick: () => save(draw(), title),
  }, kind);
  return element("span", { class: "saving" }, button("SVG", saveSvg), button("PNG", savePng));
}

function download(blob, title, ending) {
  const url = URL.createObjectURL(blob);
  const name = `${title.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").toLowerCase() || "chart"}.${ending}`;
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const textOf = (drawing) => new XMLSerializer().serializeToString(drawing);

function saveSvg(drawing, title) { download(new Blob([textOf(drawing)], { type: "image/svg+xml" }), title, "svg"); }

function savePng(drawing, title) {
  const image = new Image(), canvas = document.createElement("canvas");
  const [width, height] = ["width", "height"].map((name) => Number(drawing.getAttribute(name)));
  Object.assign(canvas, { width: 2 * width, height: 2 * height });
  image.onload = () => {
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => download(blob, title, "png"), "image/png");
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(textOf(drawing))}`;
}

// A drawing with a title above what is in it, on the page's own paper.
function sheet(title, width, height, ...content) {
  return svg("svg", { xmlns: "http://www.w3.org/2000/svg", width, height: height + 30, viewBox: `0 -30 ${width} ${height + 30}` },
    svg("rect", { x: 0, y: -30, width, height: height + 30, fill: css("--panel") }),
    svg("text", { x: 10, y: -11, fill: css("--ink"), "font-family": FONT, "font-size": 14, "font-weight": 600 }, title),
    ...content);
}

function drawingOf(chart) {
  const { plot: u, lines } = chart, ratio = devicePixelRatio;
  const [left, top, wide, high] = ["left", "top", "width", "height"].map((side) => u.bbox[side] / ratio);
  const text = (x, y, what, more) => svg("text", { x, y, fill: css("--soft"), "font-family": FONT, "font-size": 11, ...more }, what);
  const parts = [];
  u.axes[1]._splits.forEach((value, i) => {
    const y = top + u.valToPos(value, "y");
    if (y < top - 1 || y > top + high + 1) return;
    parts.push(svg("line", { x1: left, x2: left + wide, y1: y, y2: y, stroke: css("--grid") }));
    parts.push(text(left - 6, y + 4, String(u.axes[1]._values[i] ?? ""), { "text-anchor": "end" }));
  });
  u.axes[0]._splits.forEach((value, i) => {
    const x = left + u.valToPos(value, "x");
    if (x >= left - 1 && x <= left + wide + 1) parts.push(text(x, top + high + 16, String(u.axes[0]._values[i] ?? ""), { "text-anchor": "middle" }));
  });
  const clip = svg("clipPath", { id: "inside" }, svg("rect", { x: left, y: top, width: wide, height: high }));
  const drawn = svg("g", { "clip-path": "url(#inside)" });
  for (const { x, s, colour, width, dash, alpha, lineless } of lines) {
    const point = (i, values) => `${(left + u.valToPos(x[i], "x")).toFixed(1)},${(top + u.valToPos(values[i], "y")).toFixed(1)}`;
    const known = (values) => x.map((_, i) => i).filter((i) => values[i] !== null && values[i] !== undefined);
    if (s.low) {
      const there = known(s.low).filter((i) => s.high[i] !== null);
      const around = [...there.map((i) => point(i, s.high)), ...there.reverse().map((i) => point(i, s.low))];
      drawn.append(svg("polygon", { points: around.join(" "), fill: css(colour), opacity: 0.19 }));
    }
    if (lineless || x.length === 1) {
      for (const i of known(s.last)) {
        const [cx, cy] = point(i, s.last).split(",");
        drawn.append(svg("circle", { cx, cy, r: 3, fill: css(colour) }));
      }
      continue;
    }
    let path = "", open = false;
    x.forEach((_, i) => {
      if (s.last[i] === null || s.last[i] === undefined) { open = false; return; }
      path += `${open ? "L" : "M"}${point(i, s.last)}`;
      open = true;
    });
    drawn.append(svg("path", {
      d: path, fill: "none", stroke: css(colour), "stroke-width": width || 1.4, opacity: alpha, "stroke-dasharray": dash && dash.join(" "),
    }));
  }
  const named = lines.filter((line) => !line.quiet && line.label);
  const legend = named.flatMap((line, i) => {
    const y = u.height + 14 + 16 * i;
    return [
      svg("line", { x1: left, x2: left + 18, y1: y - 4, y2: y - 4, stroke: css(line.colour), "stroke-width": 3, "stroke-dasharray": line.dash && line.dash.join(" ") }),
      text(left + 24, y, line.label),
    ];
  });
  return sheet(chart.title, u.width, u.height + 16 * named.length + 8, clip, ...parts, drawn, ...legend);
}
