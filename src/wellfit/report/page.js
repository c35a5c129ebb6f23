// Draws the charts of the page with plotly, in the colours and fonts of the style sheet.
(function () {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  const PRINT_WIDTH = 680; // pixels that fit on a printed page within its margins
  // As in page.css: before printing the boxes still have the heights of the screen.
  const printHeight = (chart) => (chart.id === "loss" ? 290 : 190);

  function tone(name) {
    return getComputedStyle(root).getPropertyValue("--" + name).trim();
  }

  const FREE = 0.015; // share of the axis left free at both ends

  // plotly reads a little HTML in texts, links included; names from data stay plain text.
  function plain(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  }

  function lineOf(line) {
    const colour = tone(line.role);
    const trace = {
      type: "scatter", mode: line.points ? "lines+markers" : "lines", name: plain(line.name),
      x: line.x, y: line.y, connectgaps: false, opacity: line.faint ? 0.38 : 1,
      line: { color: colour, width: line.faint ? 1.2 : 2 }, marker: { color: colour, size: 5 },
      hovertemplate: "%{y:.4~g}",
    };
    if (line.errors.length) {
      trace.error_y = { type: "data", array: line.errors, color: colour, thickness: 1.2, width: 3 };
      trace.customdata = line.errors;
      trace.hovertemplate = "%{y:.4~g} ± %{customdata:.2~g}";
    }
    return trace;
  }

  function tracesOf(chart) {
    const traces = chart.lines.map(lineOf);
    if (chart.stretches.length) {
      traces.push({
        type: "scatter", mode: "markers", name: "not finite", yaxis: "y2",
        x: chart.stretches.map((stretch) => stretch[0]), y: chart.stretches.map(() => 0.04), cliponaxis: false,
        marker: { symbol: "x", size: 8, color: tone("critical") },
        hovertemplate: "NaN or infinite from here",
      });
    }
    return traces;
  }

  // From two decades on the powers of ten alone say enough; below, the numbers between are needed.
  function decadeTicks(chart) {
    let low = Infinity, high = 0;
    for (const line of chart.lines) {
      for (const y of line.y) {
        if (y > 0) { low = Math.min(low, y); high = Math.max(high, y); }
      }
    }
    return Math.log10(high / low) < 2 ? undefined : Math.ceil(Math.log10(high / low) / 6);
  }

  function layoutOf(chart, node, printing) {
    const soft = tone("soft");
    const narrow = !printing && node.clientWidth < 520;
    const axis = {
      gridcolor: tone("line"), linecolor: tone("line"), zeroline: false, automargin: true,
      tickfont: { color: soft, size: 12 }, fixedrange: narrow,
    };
    const severe = (mark) => (mark.severity === "info" ? soft : tone(mark.severity));
    const shapes = chart.marks.map((mark) => ({
      type: "line", x0: mark.step, x1: mark.step, y0: 0, y1: 1, yref: "paper",
      line: { color: severe(mark), width: 1.2, dash: "dot" },
    }));
    for (const [from, to] of chart.stretches) {
      shapes.push({
        type: "rect", x0: from, x1: to, y0: 0, y1: 1, yref: "paper", layer: "below",
        fillcolor: tone("critical-tint"), line: { width: 0 },
      });
    }
    const [first, last] = chart.steps;
    const free = Math.max(1, last - first) * FREE;
    const annotations = chart.marks.map((mark, place) => ({
      x: mark.step, y: 1, yref: "paper", yanchor: "top", yshift: -17 * (place % 5), text: plain(mark.text),
      xanchor: mark.step > (first + last) / 2 ? "right" : "left", showarrow: false, font: { size: 11, color: severe(mark) },
      bgcolor: tone("card"), opacity: 0.92, visible: !narrow,
    }));
    const level = chart.level;
    if (level) {
      shapes.push({
        type: "line", xref: "paper", x0: 0, x1: 1, y0: level, y1: level,
        line: { color: tone("warning"), width: 1.4, dash: "dash" },
      });
      annotations.push({
        xref: "paper", x: 1, xanchor: "right", y: chart.logarithmic ? Math.log10(level) : level, yanchor: "bottom",
        text: chart.levelText + " " + level, showarrow: false, font: { size: 11, color: tone("warning") },
        bgcolor: tone("card"), opacity: 0.92,
      });
    }
    const layout = {
      width: printing ? PRINT_WIDTH : node.clientWidth, height: printing ? printHeight(chart) : node.clientHeight,
      margin: { l: 48, r: 12, t: 10, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", shapes: shapes, annotations: annotations,
      font: { family: tone("sans"), size: 12, color: tone("ink") }, separators: ".,",
      hovermode: "x unified", dragmode: narrow ? false : "zoom",
      hoverlabel: { bgcolor: tone("card"), bordercolor: tone("line"), font: { color: tone("ink"), size: 12 } },
      showlegend: chart.lines.length > 1 || chart.stretches.length > 0,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 }, bgcolor: "rgba(0,0,0,0)" },
      xaxis: Object.assign({ title: { text: chart.axis, font: { size: 12, color: soft }, standoff: 6 },
        range: [first - free, last + free], tickformat: ",~d", hoverformat: ",d", unifiedhovertitle: { text: chart.axis + " %{x:,d}" } }, axis),
      yaxis: Object.assign({ type: chart.logarithmic ? "log" : "linear", nticks: 6 }, axis,
        chart.logarithmic ? { exponentformat: "power", dtick: decadeTicks(chart), minor: { showgrid: false } } : { tickformat: ",~r" }),
    };
    if (chart.stretches.length) {
      layout.yaxis2 = { overlaying: "y", range: [0, 1], visible: false, fixedrange: true };
    }
    return layout;
  }

  const config = { displayModeBar: false, doubleClick: "reset" };

  function draw(printing) {
    for (const chart of charts) {
      const node = document.getElementById("chart-" + chart.id);
      Plotly.react(node, tracesOf(chart), layoutOf(chart, node, printing), config);
    }
  }

  let drawnAt = 0;
  function drawIfResized() {
    const width = document.querySelector(".page").clientWidth;
    if (width !== drawnAt && !("printing" in root.dataset)) {
      drawnAt = width;
      draw(false);
    }
  }

  let opened = [];
  function beforePrint() {
    if ("printing" in root.dataset) { return; }
    root.dataset.printing = "";
    opened = Array.from(document.querySelectorAll("details:not([open])"));
    for (const part of opened) { part.open = true; }
    draw(true);
  }
  function afterPrint() {
    if (!("printing" in root.dataset)) { return; }
    delete root.dataset.printing;
    for (const part of opened) { part.open = false; }
    draw(false);
  }

  function addCopyButtons() {
    for (const box of document.querySelectorAll(".copyable")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      button.addEventListener("click", function () {
        copy(box.querySelector("pre")).then((done) => {
          button.textContent = done ? "Copied" : "Select and copy";
          setTimeout(function () { button.textContent = "Copy"; }, 1600);
        });
      });
      box.appendChild(button);
    }
  }
  function copy(node) {
    const text = node.textContent;
    if (navigator.clipboard) {
      return navigator.clipboard.writeText(text).then(() => true, () => copyBySelection(node));
    }
    return Promise.resolve(copyBySelection(node));
  }
  function copyBySelection(node) {
    const range = document.createRange();
    range.selectNodeContents(node);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
  }

  addCopyButtons();
  drawIfResized();
  new ResizeObserver(drawIfResized).observe(document.querySelector(".page"));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { draw(false); });
  window.addEventListener("beforeprint", beforePrint);
  window.addEventListener("afterprint", afterPrint);
})();
