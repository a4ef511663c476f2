window.readOnlyMode = { delay: delay, fetch: sendRequest, keep: keepRequest };

function start() {
  var some = beginDrafts();
  begin(some);
}

if (document.readyState === "loading") { document.addEventListener("DOMContentLoaded", start); } else { start(); }
