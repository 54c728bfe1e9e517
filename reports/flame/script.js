(function () {
  "use strict";
  var here = document.currentScript;
  var svg = here && here.closest ? here.closest("svg.initprof-flame") : null;
  if (!svg || svg.hasAttribute("data-live")) return;
  svg.setAttribute("data-live", "");

  var unit = svg.getAttribute("data-unit");
  var runs = +svg.getAttribute("data-runs");
  var margin = +svg.getAttribute("data-margin");
  var charWidth = +svg.getAttribute("data-char");
  var height = +svg.getAttribute("height");
  var details = svg.querySelector(".details");
  var foot = svg.querySelector(".foot");

  // Places are kept as the exact integers that the file carries. A panel is a
  // graph with a root of its own; all have one scale until they are zoomed.
  var frames = [], whole = 0, pattern = null;
  var panels = Array.prototype.map.call(svg.querySelectorAll(".frames"), function (group) {
    var panel = { frames: null, root: null, zoomed: null };
    panel.frames = Array.prototype.map.call(group.querySelectorAll(".f"), function (g) {
      var lines = g.querySelector("title").textContent.split("\n");
      return {
        panel: panel, g: g, rect: g.querySelector("rect"), text: g.querySelector("text"), lines: lines, name: lines[0],
        s: +g.getAttribute("data-s"), v: +g.getAttribute("data-v"), d: +g.getAttribute("data-d"),
        change: g.getAttribute("data-change"), hit: false
      };
    });
    panel.root = panel.zoomed = panel.frames[0];
    whole = Math.max(whole, panel.root.v);
    frames = frames.concat(panel.frames);
    return panel;
  });
  if (!frames.length) return;

  function percent(part, whole, digits) { return (100 * part / whole).toFixed(digits) + " %"; }
  function grouped(n) { return String(n).replace(/\B(?=(\d{3})+$)/g, ","); }
  function exact(n) { return grouped(n) + (unit === "count" ? "" : " " + unit); }

  function measure() {
    var probe = document.createElementNS(svg.namespaceURI, "text");
    probe.textContent = "MMMMMMMMMMMMMMMMMMMM";
    svg.appendChild(probe);
    var width = probe.getComputedTextLength ? probe.getComputedTextLength() / 20 : 0;
    svg.removeChild(probe);
    if (width > 1) charWidth = width;
  }

  function shorten(name, width) {
    var room = Math.floor((width - 6) / charWidth);
    if (room < 3) return "";
    if (Array.from(name).length > room) { // the directories of an import path go first
      var slash = name.split(/[([<{ ]/, 1)[0].lastIndexOf("/");
      if (slash >= 0 && slash + 1 < name.length) name = name.slice(slash + 1);
    }
    var cells = Array.from(name), used = 0;
    for (var i = 0; i < cells.length; i++) {
      var code = cells[i].codePointAt(0);
      var wide = code >= 0x1100 && (code <= 0x115f || (code >= 0x2e80 && code <= 0xa4cf) || (code >= 0xac00 && code <= 0xd7a3) ||
        (code >= 0xf900 && code <= 0xfaff) || (code >= 0xff00 && code <= 0xff60) || code >= 0x1f300);
      used += wide ? 2 : 1;
      if (used > room) return cells.slice(0, Math.max(0, i - 1)).join("") + "\u2026";
    }
    return name;
  }

  function pageWidth() {
    var standalone = document.documentElement === svg;
    var width = standalone ? window.innerWidth : svg.parentElement ? svg.parentElement.clientWidth : 0;
    return Math.max(300, Math.floor(width || +svg.getAttribute("width")));
  }

  function layOutPanel(panel, zoomed, width) {
    var scale = (width - 2 * margin) / (zoomed === panel.root ? whole : zoomed.v);
    var end = zoomed.s + zoomed.v;
    panel.frames.forEach(function (f) {
      var above = f.d < zoomed.d && f.s <= zoomed.s && f.s + f.v >= end;
      var inside = f === zoomed || (f.d > zoomed.d && f.s >= zoomed.s && f.s + f.v <= end);
      var w = above ? width - 2 * margin : f.v * scale;
      f.g.classList.toggle("above", above);
      f.g.classList.toggle("gone", !(above || inside) || w < 0.02);
      if (!(above || inside)) return;
      var x = margin + (above ? 0 : (f.s - zoomed.s) * scale);
      f.rect.setAttribute("x", x);
      f.rect.setAttribute("width", w);
      var label = shorten(f.name, w);
      if (label && !f.text) {
        f.text = document.createElementNS(svg.namespaceURI, "text");
        f.text.setAttribute("y", +f.rect.getAttribute("y") + 12);
        f.g.appendChild(f.text);
      }
      if (f.text) {
        f.text.setAttribute("x", x + 3);
        f.text.textContent = label;
      }
    });
  }

  function layOut() {
    var width = pageWidth();
    svg.setAttribute("width", width);
    svg.setAttribute("viewBox", "0 0 " + width + " " + height);
    panels.forEach(function (panel) { layOutPanel(panel, panel.zoomed, width); });
    if (tools) tools.setAttribute("x", width - margin - 470);
    show(null);
    fitLine(foot, footText, width);
  }

  var footText = foot ? foot.textContent : "";
  function fitLine(node, text, width) {
    if (!node) return;
    node.textContent = text;
    while (text.length > 1 && node.getComputedTextLength && node.getComputedTextLength() > width - 2 * margin) {
      text = text.slice(0, Math.max(1, Math.floor(text.length * 0.94)) - 1);
      node.textContent = text + "\u2026";
    }
  }

  function show(f) {
    var text = "";
    var panel = f ? f.panel : panels.filter(isZoomed)[0] || panels[0];
    var root = panel.root, zoomed = panel.zoomed;
    if (f) {
      text = f.name + "  " + exact(f.v) + "  " + percent(f.v, root.v, 2) + " of all";
      if (f.change) text += "  change " + f.change;
      if (zoomed !== root && f.d >= zoomed.d) text += "  " + percent(f.v, zoomed.v, 2) + " of " + zoomed.name;
      if (f.lines.length > 1 && /^[\/\[]/.test(f.lines[1])) text += "  " + f.lines[1];
    } else if (zoomed !== root) {
      text = "zoomed: " + zoomed.name + "  " + exact(zoomed.v) + "  " + percent(zoomed.v, root.v, 2) + " of all";
    }
    fitLine(details, text, +svg.getAttribute("width"));
  }

  function isZoomed(panel) { return panel.zoomed !== panel.root; }

  function changed() {
    layOut();
    mark();
    if (resetButton) resetButton.disabled = !panels.some(isZoomed) && !pattern;
  }

  function zoom(f) {
    f.panel.zoomed = f;
    changed();
  }

  // A part counts once, however many of its frames match.
  function mark() {
    var sum = 0, shown = 0;
    panels.forEach(function (panel) {
      var zoomed = panel.zoomed, covered = -1, end = zoomed.s + zoomed.v;
      shown += zoomed.v;
      panel.frames.forEach(function (f) { // parents come before their children
        f.hit = !!pattern && f !== panel.root && pattern.test(f.name);
        f.g.classList.toggle("hit", f.hit);
        if (f.hit && f.s >= covered && f.s < end && f.s + f.v > zoomed.s) {
          var from = Math.max(f.s, zoomed.s), to = Math.min(f.s + f.v, end);
          sum += to - from;
          covered = f.s + f.v;
        }
      });
    });
    if (matched) {
      matched.textContent = pattern ? percent(sum, shown, 2) : "";
      matched.title = pattern ? exact(sum) + " matched" + (runs > 1 && unit === "ns" ? " in " + runs + " cold starts" : "") : "";
    }
  }

  function search(text) {
    pattern = null;
    var bad = false;
    if (text) {
      try { pattern = new RegExp(text, "i"); } catch (e) { bad = true; }
    }
    if (input) input.classList.toggle("bad", bad);
    mark();
    if (resetButton) resetButton.disabled = !panels.some(isZoomed) && !text;
  }

  function reset() {
    if (input) input.value = "";
    search("");
    panels.forEach(function (panel) { panel.zoomed = panel.root; });
    changed();
  }

  var tools = null, input = null, resetButton = null, matched = null;
  function html(name, parent) {
    var node = document.createElementNS("http://www.w3.org/1999/xhtml", name);
    parent.appendChild(node);
    return node;
  }
  function addTools() {
    tools = document.createElementNS(svg.namespaceURI, "foreignObject");
    tools.setAttribute("y", 8);
    tools.setAttribute("width", 470);
    tools.setAttribute("height", 30);
    svg.appendChild(tools);
    var bar = html("div", tools);
    bar.className = "tools";
    matched = html("span", bar);
    matched.className = "match";
    input = html("input", bar);
    input.type = "search";
    input.placeholder = "search (regexp)";
    input.setAttribute("aria-label", "search frames by regular expression");
    input.addEventListener("input", function () { search(input.value); });
    resetButton = html("button", bar);
    resetButton.textContent = "reset";
    resetButton.disabled = true;
    resetButton.addEventListener("click", reset);
  }

  svg.addEventListener("click", function (event) {
    var g = event.target.closest ? event.target.closest(".f") : null;
    if (!g || !svg.contains(g)) return;
    for (var i = 0; i < frames.length; i++) if (frames[i].g === g) return zoom(frames[i]);
  });
  svg.addEventListener("mouseover", function (event) {
    var g = event.target.closest ? event.target.closest(".f") : null;
    var found = null;
    if (g) for (var i = 0; i < frames.length; i++) if (frames[i].g === g) { found = frames[i]; break; }
    show(found);
  });
  svg.addEventListener("mouseleave", function () { show(null); });
  document.addEventListener("keydown", function (event) {
    var target = event.target, typing = target && /^(input|textarea|select)$/i.test(target.tagName);
    if (event.key === "Escape" && (!typing || target === input)) { reset(); if (input) input.blur(); }
    if (event.key === "/" && !typing && (document.documentElement === svg || svg.matches(":hover"))) {
      event.preventDefault();
      input.focus();
    }
  });
  window.addEventListener("resize", function () { layOut(); mark(); });

  addTools();
  measure();
  layOut();
  mark();
})();
