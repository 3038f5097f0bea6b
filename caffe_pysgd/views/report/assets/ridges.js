"use strict";
// Histograms over time as ridges, the oldest at the back: where an array's values lie, and wander.

class Ridges {
  constructor(host, title, histograms, colour) {
    Object.assign(this, { title, histograms, colour });
    this.box = element("div", { class: "chart" },
      element("header", {}, element("h3", {}, title), saving(title, () => this.drawing())));
    host.append(this.box);
    const iterations = histograms.map(([at]) => at.toLocaleString("en"));
    this.place = element("div", { class: "ridges", role: "img", "aria-label":
      `${title}: histograms at iterations ${iterations.join(", ")}; from ${short(this.ends()[0])} to ${short(this.ends()[1])}.` });
    this.box.append(this.place);
    this.place.append(this.drawing(true));
  }

  ends() {
    return [Math.min(...this.histograms.map(([, low]) => low)), Math.max(...this.histograms.map(([, , high]) => high))];
  }

  drawing(bare) {
    const wide = 380, left = 62, right = 10, step = 16, tall = 46, [low, high] = this.ends();
    const place = (value) => left + ((value - low) / (high - low || 1)) * (wide - left - right);
    const height = tall + step * (this.histograms.length - 1) + 26;
    const text = (x, y, what, anchor) => svg("text", { x, y, fill: css("--soft"), "font-family": FONT, "font-size": 11, "text-anchor": anchor }, what);
    const parts = this.histograms.flatMap(([at, from, to, counts], row) => {
      const bins = Uint8Array.from(atob(counts), (c) => c.charCodeAt(0)), base = tall + step * row;
      const points = [...bins].map((bin, i) => {
        const x = place(from + ((to - from) * (i + 0.5)) / bins.length);
        return `${x.toFixed(1)},${(base - (bin / 255) * (tall - 8)).toFixed(1)}`;
      });
      const [first, last] = [place(from), place(to)].map((x) => `${x.toFixed(1)},${base}`);
      return [
        svg("path", { d: `M${first}L${points.join("L")}L${last}Z`, fill: css(this.colour), "fill-opacity": 0.22, stroke: css(this.colour), "stroke-width": 1.1 },
          svg("title", {}, `iteration ${at.toLocaleString("en")}, ${short(from)} to ${short(to)}`)),
        text(left - 8, base + 3, at.toLocaleString("en"), "end"),
      ];
    });
    const ends = [text(left, height - 6, short(low), "start"), text(wide - right, height - 6, short(high), "end")];
    if (low < 0 && high > 0) {
      parts.unshift(svg("line", { x1: place(0), x2: place(0), y1: 6, y2: height - 20, stroke: css("--rule") }));
      ends.push(text(place(0), height - 6, "0", "middle"));
    }
    if (!bare) return sheet(this.title, wide, height, ...parts, ...ends);
    return svg("svg", { viewBox: `0 0 ${wide} ${height}`, width: "100%" }, ...parts, ...ends);
  }

  remove() { this.box.remove(); }
}
