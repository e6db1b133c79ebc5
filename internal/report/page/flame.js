(function () {
  "use strict";
  var left = 4, char = 6.6, row = 17;
  function flame(graph) {
    var width = graph.viewBox.baseVal.width - 2 * left;
    var frames = Array.prototype.slice.call(graph.querySelectorAll("g.f"));
    var details = graph.querySelector(".details");
    var lines = Array.prototype.slice.call(details.querySelectorAll("tspan"));
    var ys = frames.map(function (f) { return +f.querySelector("rect").getAttribute("y"); });
    var turn = Math.min.apply(null, ys) + Math.max.apply(null, ys), icicle = false, from = left, by = width;
    function say(text) {
      var room = Math.floor(width / char), words = text.split(" ");
      lines.forEach(function (line, i) {
        var s = "";
        while (words.length && (s === "" || i === lines.length - 1 || s.length + 1 + words[0].length <= room))
          s += (s === "" ? "" : " ") + words.shift();
        line.textContent = s;
      });
    }
    function show(f, i) {
      var x = left + (+f.dataset.x - from) * width / by, w = +f.dataset.w * width / by;
      var visible = w >= 0.3 && x < left + width && x + w > left;
      f.style.display = visible ? "" : "none";
      if (!visible) return;
      var x0 = Math.max(x, left), x1 = Math.min(x + w, left + width), y = icicle ? turn - ys[i] : ys[i];
      var rect = f.querySelector("rect"), text = f.querySelector("text"), mark = f.querySelector("path");
      var at = x0 + 3, name = f.dataset.n;
      rect.setAttribute("x", x0);
      rect.setAttribute("y", y);
      rect.setAttribute("width", x1 - x0);
      if (mark) {
        mark.setAttribute("d", "M" + (x0 + Math.min(6, (x1 - x0) / 2)) + " " + (y + row / 2 - 4.5) + "l4 4l-4 4l-4 -4z");
        at += 10;
      }
      text.setAttribute("x", at);
      text.setAttribute("y", y + row - 5);
      var room = Math.floor((x1 - at - 3) / char);
      text.textContent = name.length <= room ? name : room < 3 ? "" : name.slice(0, room - 1) + "\u2026";
    }
    function zoom(x, w) {
      from = x;
      by = w;
      frames.forEach(show);
    }
    frames.forEach(function (f) {
      f.addEventListener("click", function () { zoom(+f.dataset.x, +f.dataset.w); });
      f.addEventListener("mouseenter", function () { say(f.querySelector("title").textContent); });
    });
    function press(button, act) {
      var b = graph.querySelector(button);
      b.addEventListener("click", act);
      b.addEventListener("keydown", function (e) { if (e.key === "Enter") act(); });
    }
    press(".icicle", function () {
      icicle = !icicle;
      graph.querySelector(".icicle").textContent = icicle ? "flame" : "icicle";
      frames.forEach(show);
    });
    press(".reset", function () {
      zoom(left, width);
      frames.forEach(function (f) { f.classList.remove("hit"); });
    });
    press(".search", function () {
      var want = window.prompt("Part of a function's name:");
      if (want === null) return;
      var n = 0;
      frames.forEach(function (f) {
        var hit = want !== "" && f.dataset.n.indexOf(want) >= 0;
        f.classList.toggle("hit", hit);
        if (hit) n++;
      });
      say(n + " frames match");
    });
  }
  Array.prototype.forEach.call(document.querySelectorAll("svg.flame"), flame);
})();
