// Keeps the scores on a page up to date by asking for them; without a script they are as old as the page.
"use strict";

const EVERY_MS = 4000;
const holder = document.querySelector("[data-scores]");

function phrase(match) {
  if (match.phase === "half-time") return "Half-time";
  if (match.phase === "full-time") return "Full-time";
  return match.minute + "′";
}

function show(match) {
  const place = holder.querySelector('[data-match="' + match.id + '"]');
  if (!place) return;
  const part = (name) => place.querySelector('[data-part="' + name + '"]');
  const phase = part("phase");
  phase.textContent = "";
  const text = document.createElement("span");
  text.textContent = phrase(match);
  if (match.phase === "live") text.className = "live";
  phase.append(text);
  for (const [name, goals] of [["home", match.home_goals], ["away", match.away_goals]]) {
    const box = part(name);
    if (box.textContent === String(goals)) continue;
    box.textContent = goals;
    box.classList.remove("goal");
    void box.offsetWidth; // starts the animation again
    box.classList.add("goal");
  }
  const scorers = part("goals");
  if (!scorers) return;
  scorers.replaceChildren(...match.goals.map((goal) => {
    const item = document.createElement("li");
    item.textContent = goal.scorer + " " + goal.minute + "′";
    return item;
  }));
}

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/scores.json", { headers: { accept: "application/json" } });
    if (answer.ok) (await answer.json()).matches.forEach(show);
  } catch {
    // No network for a moment: the next round asks again.
  }
}

if (holder) setInterval(refresh, EVERY_MS);

// An announced end is given in UTC; here it is shown by the reader's own clock.
for (const time of document.querySelectorAll("time[data-clock]")) {
  time.textContent = new Date(time.dateTime).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
