// For fetch and XMLHttpRequest: requests of a site's own scripts are kept, and sent again, like forms.

// Keeps a request that a script has made: `url`, `method`, `type` and `body` (text). Returns its id.
function keepRequest(request) {
  var id = Date.now().toString(36) + Math.random().toString(36).slice(2);
  var draft = {
    id: id,
    key: request.key || id,
    url: new URL(request.url, location.href).href,
    method: request.method || "POST",
    type: request.type || "",
    body: String(request.body),
    page: location.href,
    at: Date.now(),
    state: "kept"
  };
  if (!draft.url.indexOf(location.origin + "/") && keep(draft)) {
    ask();
    return id;
  }
  return null;
}

// Does what `fetch` does, with an Idempotency-Key; keeps what was refused since the site is read-only.
function sendRequest(url, options) {
  var given = options || {};
  var headers = new Headers(given.headers);
  var key = headers.get("Idempotency-Key") || Date.now().toString(36) + Math.random().toString(36).slice(2);
  headers.set("Idempotency-Key", key);
  return fetch(url, Object.assign({}, given, { headers: headers })).then(function (response) {
    var text = typeof given.body === "string" || given.body instanceof URLSearchParams;
    if (response.status === 503 && response.headers.get("X-Read-Only") && text) {
      var form = given.body instanceof URLSearchParams ? "application/x-www-form-urlencoded;charset=UTF-8" : "";
      var type = headers.get("Content-Type") || form;
      keepRequest({ url: url, method: given.method, type: type, body: given.body, key: key });
    }
    return response;
  });
}
