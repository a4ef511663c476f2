// When to ask how the site is. Many pages are open at once, and the end of a window is the same moment for all of them.
var SECOND = 1000;
var CALM = 60 * SECOND; // between two looks while nothing is near, and up to half as much again
var EAGER = 20 * SECOND; // the same, where a text waits to be sent
var SPREAD = 30 * SECOND; // pages that wait for the same moment come back spread over so much time after it
var OVERDUE = 120 * SECOND; // at most, once an announced end has passed
var BACKOFF = 300 * SECOND; // at most, while nobody answers

// Returns the milliseconds to wait. `known`: begins and ends (milliseconds since 1970, or null), readOnly, eager, late
// (looks since the end has passed) and failures (looks since the last answer); `random` returns a number from 0 to 1.
function delay(known, now, random) {
  if (known.failures > 0) {
    return Math.min(5 * SECOND * Math.pow(2, known.failures - 1), BACKOFF) * (0.5 + random());
  }
  var calm = (known.eager ? EAGER : CALM) * (1 + random() / 2);
  var moment = known.readOnly ? known.ends : known.begins;
  if (moment === null) {
    return calm;
  }
  if (moment > now) {
    return Math.min(calm, moment - now + random() * SPREAD);
  }
  return Math.min(15 * SECOND * Math.pow(2, known.late), OVERDUE) * (0.75 + random() / 2);
}
