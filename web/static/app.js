// What the pages can do beyond HTML: local times, countdowns, live updates, keys. Without it everything still works.

const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Show every point in time in the reader's zone; the exact UTC stays in the title. */
function localise(root) {
  for (const time of root.querySelectorAll("time[data-moment]")) {
    time.textContent = zone.format(new Date(time.dateTime));
  }
}

/** A span as a person reads it off a clock: the same words as the server's. */
function clock(seconds) {
  const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24, minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes >= 5 ? `${minutes} min` : minutes ? `${minutes} min ${String(seconds % 60).padStart(2, "0")} s` : `${seconds} s`;
}

// The server's clock is what counts: how far this one is off was measured when the page came.
let skew = 0;

function tick() {
  const now = Date.now() + skew;
  for (const time of document.querySelectorAll("time[data-countdown]")) {
    const left = Math.max(0, Math.round((new Date(time.dateTime) - now) / 1000));
    time.textContent = clock(left);
    if (left === 0 && !time.dataset.over) {
      time.dataset.over = "true";
      later();
    }
  }
  for (const bar of document.querySelectorAll("progress[data-until]")) {
    bar.value = Math.max(0, (new Date(bar.dataset.until) - now) / 1000);
  }
}

/** Whether somebody is filling in something in here, which must not be replaced under their hands. */
function isInUse(region) {
  if (region.contains(document.activeElement) && document.activeElement.matches("input, textarea, select")) return true;
  return [...region.querySelectorAll("input:not([type=hidden]), textarea")].some((each) => each.value !== each.defaultValue);
}

/** Put the new content of a region into place, entry by entry where its entries have names. */
function replace(old, fresh) {
  if (old.innerHTML === fresh.innerHTML) return;
  const seen = new Map([...old.querySelectorAll("[data-entry], [data-request]")].map((each) => [each.dataset.entry ?? each.dataset.request, each]));
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const opened = new Set([...old.querySelectorAll("details[open][id]")].map((each) => each.id));
  if (isInUse(old)) {
    // Entries that somebody is writing in stay as they are, all others are brought up to date.
    const entries = [...fresh.querySelectorAll(":scope > [data-request]")];
    if (!entries.length) return;
    const kept = new Set([...old.querySelectorAll(":scope > [data-request]")].filter(isInUse).map((each) => each.dataset.request));
    for (const entry of entries) if (kept.has(entry.dataset.request)) entry.replaceWith(seen.get(entry.dataset.request));
  }
  old.replaceChildren(...fresh.childNodes);
  for (const each of old.querySelectorAll("[data-entry], [data-request]")) {
    if (!seen.has(each.dataset.entry ?? each.dataset.request)) each.classList.add("arrived");
  }
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  if (focused && !focused.isConnected && focused.id) document.getElementById(focused.id)?.focus();
  localise(old);
}

let refreshing = false, again = false;

async function refresh() {
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 401) return location.reload();
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const region of document.querySelectorAll("main [data-live][id], #to-decide")) {
      const other = fresh.getElementById(region.id);
      if (other) replace(region, other);
    }
    note(answer);
    tick();
  } catch {
    // The server is away: the next word from it brings the page up to date.
  } finally {
    refreshing = false;
    if (again) {
      again = false;
      later();
    }
  }
}

let waiting;
/** Refresh soon, once for everything that changes at about the same time. */
function later() {
  waiting ??= setTimeout(() => { waiting = undefined; refresh(); }, 250);
}

function note(answer) {
  const said = new Date(answer.headers.get("Date") ?? NaN).getTime();
  // To the second, and only where it is worth correcting.
  if (!Number.isNaN(said) && Math.abs(said - Date.now()) > 2000) skew = said - Date.now();
}

function listen() {
  if (!document.body.matches("[data-live]") || !document.querySelector("main [data-live]")) return;
  const source = new EventSource("/live");
  let first = true;
  source.addEventListener("look", () => { if (!first || performance.now() > 3000) later(); first = false; });
  source.addEventListener("changed", (event) => {
    // On the page of one request, the others do not matter; but what waits for the reader is on every page.
    const here = document.querySelector("main #life[data-request]");
    if (!here || here.dataset.request === event.data || document.getElementById("to-decide")) later();
  });
  source.addEventListener("enough", () => {
    // Other pages of this person were opened since. To connect again at once would end one of theirs, which would do the same.
    source.close();
    document.addEventListener("visibilitychange", function again() {
      if (document.visibilityState !== "visible") return;
      document.removeEventListener("visibilitychange", again);
      later();
      listen();
    });
  });
  // A page that is not looked at any more gives its connection back.
  addEventListener("pagehide", () => source.close());
}

/** Keys: / leads to the search. */
function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  if (event.key === "/") {
    const search = document.querySelector("[data-shortcut='/']");
    if (search) { event.preventDefault(); search.focus(); }
  }
}

/** A form is sent once, however often its button is pressed. */
function once(event) {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "true";
  setTimeout(() => delete form.dataset.sent, 5000);
}

document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
/** A form with a preview: what would be shown is asked for while it is filled in. */
function preview(form) {
  const place = document.getElementById(form.dataset.preview);
  let soon;
  form.addEventListener("input", () => {
    clearTimeout(soon);
    soon = setTimeout(async () => {
      const sent = new URLSearchParams(new FormData(form));
      sent.set("do", "preview");
      try {
        const answer = await fetch(form.action, { method: "POST", body: sent, redirect: "manual" });
        if (!answer.ok) return;
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(place.id);
        if (fresh) place.replaceChildren(...fresh.childNodes);
      } catch {
        // The server is away; the button asks again.
      }
    }, 400);
  });
}

/** In a script's editor Tab indents; after Escape it leads on, as everywhere. */
function indent(event) {
  if (!event.target.matches?.("textarea.code")) return;
  if (event.key === "Escape") event.target.dataset.leaving = "true";
  else if (event.key === "Tab" && !event.shiftKey && !event.target.dataset.leaving) {
    event.preventDefault();
    event.target.setRangeText("\t", event.target.selectionStart, event.target.selectionEnd, "end");
  } else if (event.key !== "Tab") delete event.target.dataset.leaving;
}

// A run of its own belongs to no request: while one goes on, it is looked at again, for ten minutes at most.
let looks = 0;
setInterval(() => { if (document.querySelector("[data-again]") && looks++ < 300) refresh(); }, 2000);

document.addEventListener("keydown", indent);
for (const form of document.querySelectorAll("form[data-preview]")) preview(form);
localise(document);
tick();
setInterval(tick, 1000);
listen();
document.addEventListener("keydown", keys);
document.addEventListener("submit", once);
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.me[open]")) if (!menu.contains(event.target)) menu.open = false;
});
