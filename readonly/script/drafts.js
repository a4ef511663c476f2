// When a draft is kept, filled in, and sent: by itself at most once among all tabs, and never where nobody knows.
var busy = {}, pressed = {};

// --- sending ---

// Sends a draft; `asked`: somebody pressed the button, "once" or, knowing that it may have arrived, "again".
function send(draft, asked) {
  if (busy[draft.id] || !navigator.locks) {
    return Promise.resolve();
  }
  busy[draft.id] = true;
  // One after the other: each fetches a token, and to some sites the last one that was fetched is the only good one.
  return navigator.locks.request("readonly.sending", function () {
    draft = draftOf(draft.id);
    if (!draft || (draft.state !== "kept" && !asked)) {
      return undefined; // meanwhile it was sent by hand, or thrown away
    }
    if (marked(draft.id) && asked !== "again") {
      return sentElsewhere(draft);
    }
    tell(draft, "sending");
    return fresh(draft).then(function (found) {
      if (found.state) { change(draft, found.state); return undefined; }
      return post(draft, found.body, asked);
    }, function () {
      says(draft); // nothing has left yet: it is tried again when somebody answers
    });
  }).catch(function () {
    change(draft, "manual"); // the browser has locks, and lets nobody have one here
  }).then(function () {
    delete busy[draft.id];
    if (pressed[draft.id]) { look(); } // while it was being sent by itself
  });
}

// Another tab has sent it; or has begun to, and nobody knows how that ended.
function sentElsewhere(draft) {
  // What one tab stores another one may see a moment after it has the lock.
  return new Promise(function (go) { setTimeout(go, marked(draft.id) === "done" ? 0 : SECOND); }).then(function () {
    if (marked(draft.id) !== "done") { change(draft, "unsure"); return; }
    tell(draft, "elsewhere", "form");
    forget(draft.id);
  });
}

function pageOf(response) {
  return response.text().then(function (text) { return new DOMParser().parseFromString(text, "text/html"); });
}

function pageAt(url) {
  return fetch(url, { credentials: "same-origin", cache: "no-store", headers: { Accept: "text/html" } });
}

// Returns the `body` to send, with the tokens of the form's page as it is now; or the `state` that keeps it from that.
function fresh(draft) {
  if (draft.body !== undefined) {
    return Promise.resolve({ body: draft.body });
  }
  return pageAt(draft.page).then(function (response) {
    var status = response.status;
    if (status === 401 || status === 403) { return { state: "ended" }; }
    if (status === 404 || status === 405 || status === 410) { return { state: "gone" }; }
    if (!response.ok) { throw new Error("status " + status); }
    return pageOf(response).then(function (page) {
      var form = formFor(draft, page, response.url);
      if (!form) {
        return { state: response.redirected || hasPassword(page) ? "ended" : "gone" };
      }
      draft.asks = hasPassword(page);
      var secret = secretsOf(form);
      draft.fields = draft.fields.filter(function (field) { return secret.indexOf(field[0]) < 0; });
      var body = new URLSearchParams();
      draft.fields.forEach(function (field) { body.append(field[0], field[1]); });
      controls(form).forEach(function (field) {
        if (field.type === "hidden" && isToken(field.name)) { body.append(field.name, field.value); }
      });
      return { body: body };
    });
  });
}

function hasPassword(page) {
  return page.querySelector("input[type=password]") !== null;
}

function post(draft, body, asked) {
  // From here on it counts as sent: a tab that dies now must not leave it to another one.
  if (!mark(draft.id) && !asked) {
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
  var again = function (state) { unmark(draft.id); change(draft, state); };
  if (response.status === 503 && response.headers.get("X-Read-Only")) {
    known.readOnly = true;
    again("kept");
  } else if (response.status === 401 || (response.status === 403 && parsed(text, {}).code === "SESSION_ENDED")) {
    again("ended");
  } else if (response.status >= 500) {
    change(draft, "unsure");
  } else if (!response.ok) {
    again("refused");
  } else if (draft.body === undefined && (text = wants(draft, response, text))) {
    again(text);
  } else {
    mark(draft.id, true);
    succeeded(draft, response, text);
  }
}

// Returns what an answer of 200 wants all the same: "ended", a login; "refused", another look at the form; else "".
function wants(draft, response, text) {
  var page = new DOMParser().parseFromString(text, "text/html");
  var form = formFor(draft, page, response.url);
  if (!form) {
    // The page that the draft comes from has no field for a password.
    return !draft.asks && hasPassword(page) ? "ended" : "";
  }
  return holds(form, draft) ? "refused" : "";
}

function succeeded(draft, response, text) {
  var detail = { draft: draft, response: response, text: text };
  document.dispatchEvent(new CustomEvent("readonly:sent", { detail: detail }));
  if (draft.body !== undefined) {
    tell(draft, "sent");
    forget(draft.id);
    return;
  }
  if (response.redirected) { draft.page = response.url; }
  change(draft, "sent");
  // Only the page of the refusal gives way to what came of it: on any other one somebody may be typing.
  if (document.querySelector('form[data-readonly-draft="' + draft.id + '"]')) {
    location.replace(draft.page);
  } else {
    forget(draft.id);
  }
}

// --- pages ---

// Remembers of a form that is sent what its fields are called that nobody may keep, and where it stands. No value.
function remember(event) {
  var form = event.target;
  if (!(form instanceof HTMLFormElement) || form.hasAttribute("data-readonly-draft")) {
    return;
  }
  var replaced = [];
  drafts().forEach(function (draft) {
    var mine = draft.fields && formFor(draft, document, location.href) === form;
    // The text is in this form, and leaves with it: the draft is not sent besides.
    if (mine && (form.getAttribute("data-readonly-filled") === draft.id || holds(form, draft))) {
      replaced.push(draft.id);
      draft.state = "sent";
      keep(draft);
    }
  });
  var note = { page: location.href, secret: secretsOf(form), replaced: replaced };
  stored("sessionStorage", NOTE, JSON.stringify(note));
}

// The page of a refusal: its form holds what was typed.
function takeIn(form) {
  var before = draftOf(form.getAttribute("data-readonly-draft"));
  var note = parsed(stored("sessionStorage", NOTE), {});
  stored("sessionStorage", NOTE, null);
  (note.replaced || []).forEach(forget);
  var from = plain(document.referrer);
  if (note.page && note.page.indexOf(from) === 0) {
    take(form, before, note.page, note.secret);
  } else if (before) {
    take(form, before, before.page, before.secret);
  } else if (from && hasRoom(form)) {
    // Sent from a page without the script, or into another tab: only that page knows which fields nobody may keep.
    pageAt(from).then(function (response) {
      return pageOf(response).then(function (page) {
        var sent = { url: plain(location.href), fields: given(form) };
        var found = formFor(sent, page, response.url);
        if (found) { take(form, before, from, secretsOf(found)); ask(); }
      });
    }).catch(function () {
      return; // then it is in this page, and is not kept besides
    });
  }
}

// Returns whether it could be kept: else its page is not asked for, which may make a token that the form has worthless.
function hasRoom(form) {
  var size = given(form).reduce(function (sum, field) { return sum + field[0].length + field[1].length; }, 1000);
  return stored("sessionStorage", NOTE, "x".repeat(size)) && stored("sessionStorage", NOTE, null);
}

function given(form) {
  return controls(form).filter(function (field) {
    return field.type === "hidden" && !field.hasAttribute("data-readonly-token");
  }).map(function (field) { return [field.name, field.value]; });
}

function take(form, before, page, secret) {
  controls(form).forEach(function (field) {
    if (field.type === "hidden" && secret.indexOf(field.name) >= 0) {
      // The server knows it by no name; its own form does.
      var shown = Array.prototype.find.call(form.querySelectorAll("textarea"), function (area) {
        return area.labels.length && area.labels[0].textContent === field.name;
      });
      if (shown) { shown.parentNode.remove(); }
      field.remove();
    }
  });
  // Once it had ended, it stays so for this text: the next refusal may not know of a cookie that is gone by now.
  var ended = form.hasAttribute("data-readonly-ended") || (before && before.state === "ended");
  var draft = {
    id: form.getAttribute("data-readonly-draft"),
    key: before ? before.key : form.getAttribute("data-readonly-key"),
    url: plain(location.href),
    page: page,
    secret: secret,
    fields: given(form),
    at: before ? before.at : Date.now(),
    state: ended ? "ended" : "kept",
    here: true
  };
  if (!keep(draft)) {
    return;
  }
  var discard = form.querySelector("[data-readonly-discard]");
  discard.hidden = false;
  discard.addEventListener("click", function () {
    forget(draft.id);
    location.replace(draft.page);
  });
  form.addEventListener("submit", function (event) {
    var found = draftOf(draft.id);
    if (!found || !navigator.locks) {
      return; // the form goes as it would without a script
    }
    event.preventDefault();
    // Pressed by hand it is sent once more where nobody knows whether it has arrived; until then, as by itself.
    pressed[draft.id] = found.state === "kept" ? "once" : "again";
    if (known.readOnly) { ask(); } else { look(); }
  });
}

// A page of a refusal that is loaded anew sends its form anew: where that shows another page, it may have arrived.
function arrivedByReload() {
  var entry = performance.getEntriesByType && performance.getEntriesByType("navigation")[0];
  drafts().forEach(function (draft) {
    if (draft.here && !document.querySelector('form[data-readonly-draft="' + draft.id + '"]')) {
      draft.here = false;
      if (entry && entry.type === "reload" && draft.state === "kept") { draft.state = "unsure"; }
      keep(draft);
    }
  });
}

function look() {
  drafts().forEach(function (draft) {
    var refusal = document.querySelector('form[data-readonly-draft="' + draft.id + '"]');
    var form = draft.fields ? formFor(draft, document, location.href) : null;
    var filled = form && form.getAttribute("data-readonly-filled") === draft.id;
    if (draft.state === "sent") {
      // Said once, with what was sent: who does not find it has it here.
      says(draft);
      if (!filled && !refusal) { forget(draft.id); } // that page is about to give way to one that says so
    } else if (refusal && pressed[draft.id] && !known.readOnly && !busy[draft.id]) {
      var asked = pressed[draft.id];
      delete pressed[draft.id];
      send(draft, asked);
    } else if (draft.state === "kept" && form && (filled || holds(form, draft))) {
      // They went back to it, and have it in hand.
      form.setAttribute("data-readonly-filled", draft.id);
      tell(draft, "filled");
    } else if (draft.state === "kept") {
      says(draft);
      if (!known.readOnly && status) { send(draft, ""); }
    } else if (form && !refusal) {
      tell(draft, draft.state === "unsure" ? "unsure" : "filled");
      if (!form.hasAttribute("data-readonly-filled")) {
        form.setAttribute("data-readonly-filled", draft.id);
        // What the form has no place for is shown beside it.
        if (!fill(form, draft)) { placeOf(draft).parentNode.querySelector("details").open = true; }
      }
    } else if (refusal || draft.state === "unsure" || draft.state === "gone") {
      says(draft);
    } else {
      tell(draft, "unsent", "form");
    }
  });
}

function beginDrafts() {
  forgetOldMarks();
  var forms = document.querySelectorAll("form[data-readonly-draft]");
  forms.forEach(takeIn);
  if (!forms.length) { stored("sessionStorage", NOTE, null); }
  arrivedByReload();
  document.addEventListener("submit", remember, true);
  // A page that comes back as it was left knows nothing of what was refused since.
  window.addEventListener("pageshow", function (event) {
    if (event.persisted && drafts().length) { look(); ask(); }
  });
  known.eager = waits();
  listeners.push(look);
  return drafts().length > 0;
}
