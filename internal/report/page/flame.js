(function () {
  "use strict";
  var left = 10, width = 1180, char = 6.6;
  function flame(graph) {
    var frames = Array.prototype.slice.call(graph.querySelectorAll("g.f"));
    var details = graph.querySelector(".details");
    function show(f, x, w) {
      var visible = w >= 0.3 && x < left + width && x + w > left;
      f.style.display = visible ? "" : "none";
      if (!visible) return;
      var from = Math.max(x, left), to = Math.min(x + w, left + width);
      var rect = f.querySelector("rect"), text = f.querySelector("text"), name = f.dataset.n;
      rect.setAttribute("x", from);
      rect.setAttribute("width", to - from);
      text.setAttribute("x", from + 3);
      var room = Math.floor((to - from - 6) / char);
      text.textContent = name.length <= room ? name : room < 3 ? "" : name.slice(0, room - 1) + "\u2026";
    }
    function zoom(x0, w0) {
      frames.forEach(function (f) {
        var x = +f.dataset.x, w = +f.dataset.w;
        show(f, left + (x - x0) * width / w0, w * width / w0);
      });
    }
    frames.forEach(function (f) {
      f.addEventListener("click", function () { zoom(+f.dataset.x, +f.dataset.w); });
      f.addEventListener("mouseenter", function () { details.textContent = f.querySelector("title").textContent; });
    });
    function press(button, act) {
      var b = graph.querySelector(button);
      b.addEventListener("click", act);
      b.addEventListener("keydown", function (e) { if (e.key === "Enter") act(); });
    }
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
      details.textContent = n + " frames match";
    });
  }
  Array.prototype.forEach.call(document.querySelectorAll("svg.flame"), flame);
})();
