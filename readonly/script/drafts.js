// What was typed into a form that was refused: kept for this tab until it is sent, discarded, or a day old.
var DAY = 24 * 3600 * SECOND;
var KEPT = "readonly.drafts", FORM = "readonly.form", SENT = "readonly.sent.";
var SECRET = /(^|\s)(cc-|one-time-code|current-password|new-password)/;
var busy = {};

// Storage may be forbidden, or full: then nothing is kept, and the page's own form is there all the same.
function stored(storage, key, value) {
  try {
    if (value === undefined) { return window[storage].getItem(key); }
    if (value === null) { window[storage].removeItem(key); } else { window[storage].setItem(key, value); }
    return true;
  } catch (error) {
    return null;
  }
}

function parsed(text, otherwise) {
  try { return JSON.parse(text) || otherwise; } catch (error) { return otherwise; }
}

function drafts() {
  return parsed(stored("sessionStorage", KEPT), []).filter(function (draft) { return Date.now() - draft.at < DAY; });
}

function draftOf(id) {
  return drafts().find(function (draft) { return draft.id === id; });
}

function keep(draft) {
  var others = drafts().filter(function (one) { return one.id !== draft.id; });
  var done = stored("sessionStorage", KEPT, JSON.stringify(others.concat([draft])));
  known.eager = waits();
  return done;
}

function forget(id) {
  var left = drafts().filter(function (draft) { return draft.id !== id; });
  stored("sessionStorage", KEPT, left.length ? JSON.stringify(left) : null);
  known.eager = waits();
}

function waits() {
  return drafts().some(function (draft) { return draft.state === "kept"; });
}

// --- forms ---

function isSecret(field) {
  return field.type === "password" || SECRET.test(field.autocomplete || "");
}

function isToken(name) {
  return /csrf|xsrf|token|nonce|captcha|verification/i.test(name);
}

// Returns the form of a document that a draft came from: it goes where the draft went, and has its fields.
function formFor(draft, page, base) {
  return Array.prototype.find.call(page.querySelectorAll("form"), function (form) {
    if (form.hasAttribute("data-readonly-draft") || (form.getAttribute("method") || "").toLowerCase() !== "post") {
      return false;
    }
    return new URL(form.getAttribute("action") || base, base).href.replace(/#.*/, "") === draft.url;
  });
}

function controls(form) {
  return Array.prototype.filter.call(form.elements, function (field) { return field.name; });
}

// Remembers of a form that is sent what its fields are called that nobody may keep, and where it stands. No value.
function remember(event) {
  var form = event.target;
  if (!form.elements || form.hasAttribute("data-readonly-draft")) {
    return;
  }
  var secret = controls(form).filter(isSecret).map(function (field) { return field.name; });
  stored("sessionStorage", FORM, JSON.stringify({ page: location.href, secret: secret }));
  drafts().forEach(function (draft) {
    if (draft.state !== "kept" && formFor(draft, document, location.href) === form) { forget(draft.id); }
  });
}

function fill(form, draft) {
  var values = {};
  draft.fields.forEach(function (field) { (values[field[0]] = values[field[0]] || []).push(field[1]); });
  controls(form).forEach(function (field) {
    var mine = values[field.name];
    if (!mine || field.type === "hidden" || field.type === "file" || isSecret(field) || field.type === "submit") {
      return;
    }
    if (field.type === "checkbox" || field.type === "radio") {
      field.checked = mine.indexOf(field.value) >= 0;
    } else if (field.type === "select-multiple") {
      Array.prototype.forEach.call(field.options, function (o) { o.selected = mine.indexOf(o.value) >= 0; });
    } else if (mine.length) {
      field.value = mine.shift();
    }
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
}

// --- what is said ---

function tell(draft, key, link) {
  var told = document.querySelector('[data-readonly-draft="' + draft.id + '"] [data-readonly-told]');
  if (!told) {
    told = document.querySelector("[data-readonly-told]");
    if (!told) {
      told = document.createElement("p");
      told.className = "readonly-draft";
      told.setAttribute("data-readonly-told", "");
      told.setAttribute("role", "status");
      banner().after(told);
    }
  }
  var text = (words || {})[key] || "";
  if (told.firstChild && told.firstChild.textContent === text + " " && !link) {
    return;
  }
  told.textContent = "";
  told.appendChild(document.createTextNode(text + " "));
  if (link) {
    var a = document.createElement("a");
    a.href = draft.page;
    a.textContent = words[link];
    told.appendChild(a);
  }
  told.setAttribute("data-readonly-said", key);
}

function says(draft) {
  if ((draft.state === "kept" && !navigator.locks) || (draft.state === "ended" && known.readOnly)) {
    tell(draft, "manual");
  } else if (draft.state === "ended") {
    tell(draft, "ended", "login");
  } else if (draft.state === "unsure" || draft.state === "refused") {
    tell(draft, draft.state, "form");
  } else {
    tell(draft, draft.state);
  }
}

function change(draft, state) {
  draft.state = state;
  keep(draft);
  says(draft);
}

// --- sending ---

// Sends a draft, once among all tabs; `asked`: somebody pressed the button.
function send(draft, asked) {
  if (busy[draft.id] || !navigator.locks) {
    return Promise.resolve();
  }
  busy[draft.id] = true;
  return navigator.locks.request("readonly." + draft.id, function () {
    var sent = parseInt(stored("localStorage", SENT + draft.id), 10);
    if (Date.now() - sent < DAY && !asked) {
      // Another tab has, or has begun to: then it knows more than this one.
      forget(draft.id);
      tell(draft, "elsewhere", "form");
      return undefined;
    }
    tell(draft, "sending");
    return fresh(draft).then(function (body) {
      if (body === null) {
        change(draft, "ended");
        return undefined;
      }
      return post(draft, body);
    }, function () {
      says(draft); // nothing has left yet: it is tried again when somebody answers
    });
  }).then(function () { busy[draft.id] = false; });
}

// Returns the fields to send, with the tokens of the form's page as it is now; null if that page has no such form.
function fresh(draft) {
  if (draft.body !== undefined) {
    return Promise.resolve(draft.body);
  }
  return fetch(draft.page, { credentials: "same-origin", cache: "no-store", headers: { Accept: "text/html" } })
    .then(function (response) {
      if (!response.ok) { throw new Error("status " + response.status); }
      return response.text().then(function (text) {
        var page = new DOMParser().parseFromString(text, "text/html");
        var form = formFor(draft, page, response.url);
        if (!form) {
          return null;
        }
        draft.asks = hasPassword(page);
        var secret = controls(form).filter(isSecret).map(function (field) { return field.name; });
        draft.fields = draft.fields.filter(function (field) { return secret.indexOf(field[0]) < 0; });
        var body = new URLSearchParams();
        draft.fields.forEach(function (field) { body.append(field[0], field[1]); });
        controls(form).forEach(function (field) {
          if (field.type === "hidden" && isToken(field.name)) { body.append(field.name, field.value); }
        });
        return body;
      });
    });
}

function hasPassword(page) {
  return page.querySelector("input[type=password]") !== null;
}

// Returns whether an answer is the form by which people log in: the page that the draft comes from has none.
function asksWho(draft, text, url) {
  var page = new DOMParser().parseFromString(text, "text/html");
  return !draft.asks && hasPassword(page) && !formFor(draft, page, url);
}

function post(draft, body) {
  // From here on it counts as sent: a tab that dies now must not leave it to another one.
  if (!stored("localStorage", SENT + draft.id, String(Date.now()))) {
    change(draft, "manual");
    return undefined;
  }
  var headers = { "Idempotency-Key": draft.key, Accept: draft.body === undefined ? "text/html" : "*/*" };
  if (draft.type) { headers["Content-Type"] = draft.type; }
  document.dispatchEvent(new CustomEvent("readonly:sending", { detail: { draft: draft, headers: headers } }));
  var options = { method: draft.method || "POST", body: body, headers: headers, credentials: "same-origin" };
  return fetch(draft.url, options).then(function (response) {
    return response.text().then(function (text) { answered(draft, response, text); });
  }).catch(function () {
    change(draft, "unsure");
  });
}

function answered(draft, response, text) {
  var again = function (state) { stored("localStorage", SENT + draft.id, null); change(draft, state); };
  if (response.status === 503 && response.headers.get("X-Read-Only")) {
    known.readOnly = true;
    again("kept");
  } else if (response.status === 403 && parsed(text, {}).code === "SESSION_ENDED") {
    again("ended");
  } else if (response.status >= 500) {
    change(draft, "unsure");
  } else if (!response.ok) {
    again("refused");
  } else if (response.redirected && asksWho(draft, text, response.url)) {
    again("ended");
  } else {
    forget(draft.id);
    var detail = { draft: draft, response: response, text: text };
    document.dispatchEvent(new CustomEvent("readonly:sent", { detail: detail }));
    if (draft.body === undefined) { location.replace(response.redirected ? response.url : draft.page); }
  }
}

// --- pages ---

// The page of a refusal: its form holds what was typed.
function takeIn(form) {
  var id = form.getAttribute("data-readonly-draft");
  var about = parsed(stored("sessionStorage", FORM), {});
  var secret = about.secret || [];
  var before = draftOf(id);
  var fields = [];
  controls(form).forEach(function (field) {
    if (field.type !== "hidden") {
      return;
    }
    if (secret.indexOf(field.name) >= 0) {
      // The server knows it by no name; its own form does.
      var shown = Array.prototype.find.call(form.querySelectorAll("textarea"), function (area) {
        return area.labels.length && area.labels[0].textContent === field.name;
      });
      if (shown) { shown.parentNode.remove(); }
      field.remove();
    } else if (!field.hasAttribute("data-readonly-token")) {
      fields.push([field.name, field.value]);
    }
  });
  var draft = {
    id: id,
    key: before ? before.key : form.getAttribute("data-readonly-key"),
    url: location.href.replace(/#.*/, ""),
    page: about.page || document.referrer || location.href,
    fields: fields,
    at: before ? before.at : Date.now(),
    // Once it had ended, it stays so for this text: the next refusal may not know of a cookie that is gone by now.
    state: form.hasAttribute("data-readonly-ended") || (before && before.state === "ended") ? "ended" : "kept"
  };
  if (!keep(draft)) {
    return;
  }
  var discard = form.querySelector("[data-readonly-discard]");
  discard.hidden = false;
  discard.addEventListener("click", function () {
    forget(id);
    location.replace(draft.page);
  });
  if (navigator.locks) {
    form.addEventListener("submit", function (event) {
      event.preventDefault();
      var found = draftOf(id);
      if (!found) { return; }
      // Pressed by hand it is sent once more where nobody knows whether it has arrived; until then, as by itself.
      if (known.readOnly) { ask(); } else { send(found, found.state !== "kept"); }
    });
  }
}

function look() {
  drafts().forEach(function (draft) {
    var form = formFor(draft, document, location.href);
    if (draft.state === "kept") {
      says(draft);
      if (!known.readOnly && status) { send(draft, false); }
    } else if (form) {
      if (!form.hasAttribute("data-readonly-filled")) {
        form.setAttribute("data-readonly-filled", "");
        fill(form, draft);
      }
      tell(draft, "filled");
    } else if (document.querySelector('[data-readonly-draft="' + draft.id + '"]')) {
      says(draft);
    } else {
      tell(draft, "unsent", "form");
    }
  });
}

function beginDrafts() {
  document.querySelectorAll("form[data-readonly-draft]").forEach(takeIn);
  document.addEventListener("submit", remember, true);
  known.eager = waits();
  listeners.push(look);
  return drafts().length > 0;
}

// --- for fetch and XMLHttpRequest ---

// Keeps a request that a script has made, to be sent again: `url`, `method`, `type` and `body` (text). Returns its id.
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
