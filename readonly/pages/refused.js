
(function () {
  "use strict";
  var time = document.querySelector("time"), left = document.getElementById("left");
  if (time) {
    var end = new Date(time.dateTime), shape = { hour: "2-digit", minute: "2-digit" };
    if (end.toDateString() !== new Date().toDateString()) {
      shape.weekday = "short"; shape.day = "numeric"; shape.month = "short";
    }
    time.title = time.textContent;
    time.textContent = end.toLocaleString([], shape);
    // The browser knows how many minutes are said in the page's language.
    var say = new Intl.RelativeTimeFormat(document.documentElement.lang);
    var tick = function () {
      var minutes = Math.round((end - Date.now()) / 60000);
      if (minutes < 1) { left.textContent = left.dataset.soon; }
      else if (minutes < 90) { left.textContent = say.format(minutes, "minute"); }
    };
    if (left) { tick(); setInterval(tick, 15000); }
  }
  var back = document.getElementById("back");
  if (history.length > 1) {
    back.hidden = false;
    back.addEventListener("click", function () { history.back(); });
  }
})();
