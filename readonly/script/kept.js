// What was typed into a form that was refused: kept for this tab until it is sent, discarded, or a day old.
var DAY = 24 * 3600 * SECOND;
var KEPT = "readonly.drafts", NOTE = "readonly.form", SENT = "readonly.sent.";

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

// --- what other tabs have sent ---

// Marks a draft as one that a tab has begun to send: none other begins. Returns whether that could be kept.
function mark(id, done) {
  return stored("localStorage", SENT + id, Date.now() + (done ? " done" : ""));
}

// Returns what is known of a draft's sending: "", "begun" (it may have arrived), or "done".
function marked(id) {
  var text = stored("localStorage", SENT + id) || "";
  return Date.now() - parseInt(text, 10) < DAY ? (/done$/.test(text) ? "done" : "begun") : "";
}

function unmark(id) {
  stored("localStorage", SENT + id, null);
}

function forgetOldMarks() {
  try {
    Object.keys(window.localStorage).forEach(function (key) {
      if (key.indexOf(SENT) === 0 && !marked(key.slice(SENT.length))) { window.localStorage.removeItem(key); }
    });
  } catch (error) {
    return; // forbidden: then there are none
  }
}

// --- forms ---

var SECRET = /(^|\s)(cc-|one-time-code|current-password|new-password)/;
var FILLED = { INPUT: 1, TEXTAREA: 1, SELECT: 1 };
var PRESSED = { submit: 1, image: 1, button: 1, reset: 1 };
var CHOSEN = { checkbox: 1, radio: 1, "select-one": 1, "select-multiple": 1, range: 1, color: 1 };
// A field may be called "elements".
var ELEMENTS = Object.getOwnPropertyDescriptor(HTMLFormElement.prototype, "elements").get;

function controls(form) {
  return Array.prototype.filter.call(ELEMENTS.call(form), function (one) { return one.name && FILLED[one.tagName]; });
}

function isSecret(field) {
  return field.type === "password" || SECRET.test(field.autocomplete || field.getAttribute("autocomplete") || "");
}

function secretsOf(form) {
  return controls(form).filter(isSecret).map(function (field) { return field.name; });
}

function isToken(name) {
  return /csrf|xsrf|token|nonce|captcha|verification/i.test(name);
}

function plain(url) {
  return url.replace(/#.*/, "");
}

// Returns whether a form, or one of its buttons, posts to an address.
function posts(form, url, base) {
  var submits = Array.prototype.filter.call(ELEMENTS.call(form), function (field) {
    return field.type === "submit" || field.type === "image";
  });
  return [form].concat(submits).some(function (one) {
    var said = function (name) {
      return (one !== form && one.getAttribute("form" + name)) || form.getAttribute(name) || "";
    };
    try {
      return said("method").toLowerCase() === "post" && plain(new URL(said("action") || base, base).href) === url;
    } catch (error) {
      return false;
    }
  });
}

// Returns the form of a document that a draft came from: of those that go where the draft went, the one most like it.
// One that has nothing of it is another one: a login may be shown at any address.
function formFor(draft, page, base) {
  var own = page.querySelector("base[href]");
  if (own) { base = new URL(own.getAttribute("href"), base).href; }
  var best = null, most = draft.fields && draft.fields.length ? 0 : -1;
  page.querySelectorAll("form").forEach(function (form) {
    if (form.hasAttribute("data-readonly-draft") || !posts(form, draft.url, base)) {
      return;
    }
    var like = 0, fields = Array.prototype.slice.call(ELEMENTS.call(form));
    (draft.fields || []).forEach(function (field) {
      var mine = fields.filter(function (one) { return one.name === field[0]; });
      like += mine.length ? 1 : 0;
      like += mine.some(function (one) { return one.type === "hidden" && one.value === field[1]; }) ? 1 : 0;
    });
    if (like > most) { best = form; most = like; }
  });
  return best;
}

function smooth(text) {
  return text.replace(/\r\n?/g, "\n").trim();
}

// Returns whether a form holds what was typed: the longest text of it, at least.
function holds(form, draft) {
  var longest = "", field = null;
  var places = controls(form).filter(function (one) {
    return !CHOSEN[one.type] && !PRESSED[one.type] && one.type !== "hidden" && one.type !== "file" && !isSecret(one);
  });
  draft.fields.forEach(function (typed) {
    var mine = places.filter(function (one) { return one.name === typed[0]; });
    if (mine.length && smooth(typed[1]).length > longest.length) { longest = smooth(typed[1]); field = mine; }
  });
  return field !== null && field.some(function (one) { return smooth(one.value) === longest; });
}

// Returns whether there was a place for everything.
function fill(form, draft) {
  var values = {}, all = true;
  draft.fields.forEach(function (field) { (values[field[0]] = values[field[0]] || []).push(field[1]); });
  controls(form).forEach(function (field) {
    if (field.type === "hidden" || field.type === "file" || PRESSED[field.type] || field.disabled || isSecret(field)) {
      return;
    }
    var mine = values[field.name] || [];
    if (field.type === "checkbox" || field.type === "radio") {
      // What is not sent was not chosen, whatever the form says at first.
      field.checked = mine.indexOf(field.value) >= 0;
    } else if (field.type === "select-multiple") {
      var found = Array.prototype.filter.call(field.options, function (o) {
        o.selected = mine.indexOf(o.value) >= 0;
        return o.selected;
      });
      all = all && found.length >= mine.length;
    } else if (mine.length) {
      var text = mine.shift();
      field.value = text;
      all = all && smooth(field.value) === smooth(text);
    } else {
      return;
    }
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
  // For editors that hold their text elsewhere.
  form.dispatchEvent(new CustomEvent("readonly:filled", { bubbles: true, detail: { draft: draft } }));
  return all;
}
