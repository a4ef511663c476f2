// What is said of a draft, in a place of its own, read out once; and what was typed, wherever its form is not.
function placeOf(draft) {
  var form = document.querySelector('form[data-readonly-draft="' + draft.id + '"]');
  if (form) {
    return form.querySelector("[data-readonly-told]");
  }
  var found = document.querySelector('[data-readonly-of="' + draft.id + '"]');
  if (found) {
    return found.querySelector("[data-readonly-told]");
  }
  var all = document.createElement("section");
  all.className = "readonly-draft";
  all.setAttribute("data-readonly-of", draft.id);
  var told = document.createElement("p");
  told.setAttribute("data-readonly-told", "");
  told.setAttribute("role", "status");
  told.dir = "auto";
  all.appendChild(told);
  var other = document.querySelector("form[data-readonly-draft]");
  (other || banner()).after(all);
  all.appendChild(typed(draft));
  return told;
}

// Returns what was typed, to be opened and copied, with a button to throw it away. Only text is made of it.
function typed(draft) {
  var all = document.createElement("details");
  var make = function (kind, text) {
    var element = document.createElement(kind);
    element.textContent = text;
    all.appendChild(element);
    return element;
  };
  make("summary", "");
  (draft.fields || [["", draft.body]]).forEach(function (field) {
    if (!field[1].trim()) {
      return;
    }
    if (field[0]) { make("p", field[0]).dir = "auto"; }
    var text = make("pre", field[1]);
    text.dir = "auto";
    text.style.font = "inherit";
    text.style.whiteSpace = "pre-wrap";
    text.style.overflowWrap = "anywhere";
  });
  var button = make("button", "");
  button.type = "button";
  button.addEventListener("click", function () {
    forget(draft.id);
    all.parentNode.remove();
  });
  return all;
}

function tell(draft, key, link) {
  var told = placeOf(draft);
  var saying = [key, link || "", words !== null].join();
  if (told.getAttribute("data-readonly-said") === saying) {
    return; // or it would be read out each time
  }
  told.setAttribute("data-readonly-said", saying);
  told.textContent = ((words || {})[key] || "") + " ";
  var all = told.parentNode.querySelector("details");
  // (The page of a refusal may have the address of its form's page.)
  if (link && words && !(all && plain(draft.page) === plain(location.href))) {
    var a = document.createElement("a");
    a.href = draft.page;
    a.textContent = words[link];
    told.appendChild(a);
  }
  if (all && words) {
    var texts = (draft.fields || [["", draft.body]]).map(function (field) { return field[1].trim(); });
    all.parentNode.setAttribute("aria-label", words.typed + ": " + (texts.find(Boolean) || "").slice(0, 40));
    all.querySelector("summary").textContent = words.typed;
    all.querySelector("button").textContent = words.discard;
  }
}

function says(draft) {
  if ((draft.state === "kept" && !navigator.locks) || (draft.state === "ended" && known.readOnly)) {
    tell(draft, "manual");
  } else {
    var links = { ended: "login", unsure: "form", refused: "form", gone: "form", sent: "page" };
    tell(draft, draft.state, links[draft.state]);
  }
}

function change(draft, state) {
  draft.state = state;
  keep(draft);
  says(draft);
}
