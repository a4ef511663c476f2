// The banner of a page, its countdown, and the buttons that can't do anything for a while.
var script = document.currentScript;
var STATUS = script.src.replace(/[^\/]*$/, "status");
// The page's language, as it is spoken where the visitor is.
var LANGUAGE = (document.documentElement.lang || navigator.language).replace(/_/g, "-");
try {
  Intl.getCanonicalLocales(LANGUAGE);
} catch (error) {
  LANGUAGE = navigator.language; // or no time could be shown, and nothing asked
}
LANGUAGE = (navigator.languages || []).find(function (one) { return one.indexOf(LANGUAGE + "-") === 0; }) || LANGUAGE;
var STILL = window.matchMedia("(prefers-reduced-motion: reduce)");
var known = { readOnly: false, begins: null, ends: null, eager: false, late: 0, failures: 0 };
var words = null; // what is said in this page's language, once it was asked for
var skew = 0; // the site's clock is so much ahead of this one
var status = null; // the last answer
var lines = []; // what the banner says
var then = null; // what it says from the announced moment on
var overdue = null; // what it says past the announced end, while nobody answers
var wasReadOnly = false;
var asked = -Infinity;
var timer = 0;
var place = null;
var told = "";
var listeners = [];

function now() {
  return Date.now() + skew;
}

function instant(text) {
  return text ? Date.parse(text) : null;
}

// --- the banner ---

function banner() {
  if (place) {
    return place;
  }
  place = document.querySelector("[data-readonly-banner]");
  if (!place) {
    // It is there before it says anything, or a screen reader would not read it out.
    place = document.createElement("div");
    place.className = "readonly-banner";
    place.setAttribute("data-readonly-banner", "");
    var here = document.querySelector("[data-readonly-here]");
    if (here) { here.appendChild(place); } else { document.body.insertBefore(place, document.body.firstChild); }
  }
  place.setAttribute("role", "status");
  place.setAttribute("aria-live", "polite");
  return place;
}

function time(at) {
  var shape = { hour: "2-digit", minute: "2-digit" };
  if (new Date(at).toDateString() !== new Date(now()).toDateString()) {
    shape.weekday = "short"; shape.day = "numeric"; shape.month = "short";
  }
  var element = document.createElement("time");
  element.dateTime = new Date(at).toISOString().replace(/\.\d+Z$/, "Z");
  element.textContent = new Intl.DateTimeFormat(LANGUAGE, shape).format(at);
  return element;
}

// A line's text, with the times where they belong. Only text and <time> are made, whatever a message holds.
function line(text) {
  var p = document.createElement("p");
  p.dir = "auto";
  text.split(/(\{\{|\}\}|\{begins\}|\{ends\})/).forEach(function (part) {
    var at = part === "{begins}" ? known.begins : part === "{ends}" ? known.ends : null;
    var text = part === "{{" || part === "}}" ? part[0] : part;
    p.appendChild(at === null ? document.createTextNode(text) : time(at));
  });
  return p;
}

function say(kind, texts) {
  var saying = kind + JSON.stringify([texts, known.begins, known.ends]);
  if (saying === told) {
    return;
  }
  told = saying;
  var element = banner();
  element.textContent = "";
  element.setAttribute("data-readonly-banner", kind);
  texts.forEach(function (text) { element.appendChild(line(text)); });
  if (kind === "announced" || kind === "read_only") {
    var left = document.createElement("p");
    left.setAttribute("role", "timer");
    left.setAttribute("aria-live", "off"); // it changes all the time, which nobody wants to hear
    left.className = "readonly-countdown";
    element.appendChild(left);
  }
  if (texts.length && !STILL.matches && element.animate) {
    element.animate([{ opacity: 0 }, { opacity: 1 }], 300);
  }
  count();
}

function count() {
  var left = place && place.querySelector(".readonly-countdown");
  if (!left) {
    return;
  }
  var moment = known.readOnly ? known.ends : known.begins;
  var seconds = moment === null ? 0 : Math.round((moment - now()) / SECOND);
  if (seconds <= 0) {
    left.textContent = "";
    return;
  }
  var relative = new Intl.RelativeTimeFormat(LANGUAGE);
  var text = seconds >= 5400 ? relative.format(Math.round(seconds / 3600), "hour")
    : seconds >= 60 || STILL.matches ? relative.format(Math.ceil(seconds / 60), "minute")
    : relative.format(seconds, "second");
  if (left.textContent !== text) {
    left.textContent = text;
  }
}

// --- buttons ---

function buttons(off) {
  document.querySelectorAll("[data-readonly-disable]").forEach(function (button) {
    if (off === button.hasAttribute("data-readonly-off")) {
      return;
    }
    if (off) {
      button.setAttribute("data-readonly-off", button.disabled ? "was" : "");
      button.disabled = true;
      button.setAttribute("aria-disabled", "true");
    } else {
      button.disabled = button.getAttribute("data-readonly-off") === "was";
      button.removeAttribute("data-readonly-off");
      button.removeAttribute("aria-disabled");
    }
  });
}

// --- what is known ---

function apply() {
  if (!known.readOnly && known.begins !== null && now() >= known.begins) {
    // It turns by itself, at the moment that was announced; whoever asks then asks a little later.
    known.readOnly = true;
    known.ends = status && status.announced ? instant(status.announced.ends) : null;
    known.begins = null;
    lines = then || [];
  }
  if (known.readOnly && known.ends !== null && now() >= known.ends && known.failures > 0) {
    // A site that answers says by itself what has become of it; of one that does not nobody believes the time.
    lines = overdue || lines;
  }
  var holder = status && status.bypass;
  var kind = known.readOnly ? "read_only" : known.begins !== null ? "announced" : holder ? "bypass" : "";
  if (kind) {
    say(kind, lines);
  } else if (wasReadOnly && words) {
    say("over", [words.over]);
  } else if (place && told.indexOf("over") !== 0) {
    say("", []);
  }
  wasReadOnly = known.readOnly;
  buttons(known.readOnly);
  count();
}

function learn(answer) {
  status = answer;
  var announced = answer.announced || null;
  var end = instant(answer.expected_end);
  var late = answer.read_only && known.readOnly && end !== null && end === known.ends && end <= now();
  known.late = late ? known.late + 1 : 0;
  known.failures = 0;
  known.readOnly = answer.read_only && !answer.bypass;
  known.begins = announced && !answer.read_only ? instant(announced.begins) : null;
  known.ends = instant(answer.bypass ? answer.bypass.until : announced ? announced.ends : answer.expected_end);
  lines = answer.says || [];
  then = answer.then || null;
  overdue = answer.overdue || null;
  words = answer.words || words;
  apply();
  listeners.forEach(function (listener) { listener(known.readOnly); });
}

function ask() {
  timer = 0;
  var began = Date.now();
  asked = began;
  var url = STATUS + (words ? "?says" : "?says&words");
  var headers = { "Accept-Language": LANGUAGE, Accept: "application/json" };
  return fetch(url, { headers: headers, cache: "no-store", credentials: "same-origin" })
    .then(function (response) {
      if (!response.ok) { throw new Error("status " + response.status); }
      return response.json();
    })
    .then(function (answer) {
      if (answer.now) { skew = Date.parse(answer.now) - (began + Date.now()) / 2; }
      learn(answer);
    })
    .catch(function () { known.failures += 1; })
    .then(next);
}

function next() {
  clearTimeout(timer);
  timer = document.hidden ? 0 : setTimeout(ask, delay(known, now(), Math.random));
}

document.addEventListener("visibilitychange", function () {
  clearTimeout(timer);
  if (!document.hidden) {
    // Many tabs come back at once when a computer wakes up.
    timer = setTimeout(ask, Math.max(0, asked + 10 * SECOND - Date.now()) + Math.random() * 2 * SECOND);
  }
});

function tick() {
  if (!document.hidden && (known.begins !== null || known.ends !== null)) { apply(); }
}

function begin(some) {
  banner();
  setInterval(tick, SECOND);
  // Most visitors leave soon: nobody is asked for their sake. A page that says something already wants its words.
  var soon = some || place.getAttribute("data-readonly-banner");
  if (!document.hidden) { timer = setTimeout(ask, soon ? 0 : (2 + 8 * Math.random()) * SECOND); }
}
