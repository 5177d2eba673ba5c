// What makes the desk quicker to use: news as they happen, verdicts without leaving the page, a drawer, keys, clocks.
// Nothing here decides what is shown: every text comes from the desk as HTML that is escaped there. Without this script the
// same forms and links work.
"use strict";

document.documentElement.classList.add("js");

// Only what this desk itself wrote becomes a part of the page.
const ours = window.trustedTypes
  ? trustedTypes.createPolicy("holdshort", { createHTML: (html) => html })
  : { createHTML: (html) => html };
const csrf = document.querySelector("meta[name=csrf]")?.content ?? "";
const list = document.getElementById("holds");
const drawer = document.getElementById("drawer");
const help = document.getElementById("help");
const GONE_AFTER_MS = 4000;

function piece(html) {
  const holder = document.createElement("template");
  holder.innerHTML = ours.createHTML(html);
  return holder.content;
}

// --- clocks

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return [h && `${h}h`, m && `${m}m`, (s % 60 || s === 0) && `${s % 60}s`].filter(Boolean).join(" ");
}

function tick() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-until], time[data-since]")) {
    const until = time.dataset.until;
    const seconds = until ? (Date.parse(until) - now) / 1000 : (now - Date.parse(time.dataset.since)) / 1000;
    time.textContent = span(seconds);
    if (until) time.parentElement.classList.toggle("soon", seconds < 60);
  }
}
tick();
setInterval(tick, 1000);

// --- news

function count(waiting) {
  const shown = document.getElementById("count");
  if (shown) shown.textContent = waiting;
  document.title = document.title.replace(/^(\(\d+\) )?/, waiting > 0 ? `(${waiting}) ` : "");
  const nothing = document.getElementById("nothing");
  if (nothing) nothing.hidden = list.children.length > 0;
}

function changed() {
  const note = document.getElementById("changed");
  if (note) note.hidden = false;
}

function exchange(old, fresh) {
  const chosen = old.classList.contains("on");
  const focused = old.contains(document.activeElement);
  old.replaceWith(fresh);
  if (chosen) choose(fresh, focused);
}

function heard(kind, news) {
  if (kind === "missed") {
    // Nobody who is reading or writing is interrupted.
    const busy = drawer?.open || help?.open || list.querySelector(".on") || document.activeElement?.matches("input, select, summary");
    if (busy || location.search) changed();
    else location.reload();
    return;
  }
  const old = document.getElementById(`hold-${news.id}`);
  const fresh = piece(news.html).firstElementChild;
  if (old && kind === "held") {
    // What somebody is writing stays.
    const written = old.querySelector("input[name=comment]");
    if (!written || written.value === "") exchange(old, fresh);
  } else if (old) {
    exchange(old, fresh);
    setTimeout(() => { fresh.remove(); count(Number(document.getElementById("count").textContent)); }, GONE_AFTER_MS);
  } else if (kind === "held") {
    if (list.dataset.live === "all") list.append(fresh);
    else changed();
  }
  if (drawer?.open && drawer.dataset.id === news.id) drawn(news.id, true);
  count(news.waiting);
}

function listen() {
  const live = document.getElementById("live");
  const source = new EventSource("/events");
  source.onopen = () => { live.className = "live on"; live.textContent = "live"; };
  source.onerror = () => { live.className = "live off"; live.textContent = "no connection"; };
  for (const kind of ["held", "ended", "missed"]) {
    source.addEventListener(kind, (event) => heard(kind, JSON.parse(event.data)));
  }
  // After a break something may have been missed.
  let wasOpen = false;
  source.addEventListener("open", () => { if (wasOpen) heard("missed"); wasOpen = true; });
}
if (list) listen();

// --- verdicts

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form.verdict:not(.plain)")) return;
  event.preventDefault();
  const action = event.submitter?.getAttribute("formaction") ?? form.getAttribute("action");
  const hint = form.querySelector(".hint");
  const comment = form.elements.comment;
  if (action.endsWith("/reject") && comment.value.trim() === "") {
    hint.textContent = "Say why: the agent reads it.";
    comment.focus();
    return;
  }
  const buttons = form.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  const said = new URLSearchParams(new FormData(form));
  said.set("csrf", csrf);
  try {
    const answer = await fetch(action, { method: "POST", body: said, headers: { "X-Desk-Piece": "row" } });
    const text = await answer.text();
    if (answer.ok) {
      const row = form.closest(".hold");
      const fresh = piece(text).firstElementChild;
      if (row?.isConnected) exchange(row, fresh);
      if (drawer?.open) drawer.close();
      if (!list) location.reload();
      return;
    }
    const told = new DOMParser().parseFromString(ours.createHTML(text), "text/html");
    const words = ["problem", "detail"].map((id) => told.getElementById(id)?.textContent).filter(Boolean);
    hint.textContent = words.join(": ") || `The desk says ${answer.status}.`;
  } catch {
    hint.textContent = "The desk does not answer. Nothing was decided by this page.";
  }
  buttons.forEach((button) => { button.disabled = false; });
});

// --- the drawer

async function drawn(id, again = false) {
  const answer = await fetch(`/holds/${id}`, { headers: { "X-Desk-Piece": "card" } });
  const text = await answer.text();
  // It may have been closed, or opened for another hold, while the answer was on its way.
  if (again && !(drawer.open && drawer.dataset.id === id)) return;
  if (!answer.ok) { location.href = `/holds/${id}`; return; }
  document.getElementById("drawn").replaceChildren(piece(text));
  drawer.dataset.id = id;
  if (!drawer.open) drawer.showModal();
  tick();
}

document.addEventListener("click", (event) => {
  if (event.target.closest("dialog .close")) event.target.closest("dialog").close();
  if (event.target === drawer) drawer.close();
  if (event.target.closest("#keys")) help.showModal();
  const link = event.target.closest("a.open");
  const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0;
  if (link && drawer && plain) {
    event.preventDefault();
    drawn(link.closest(".hold").dataset.id);
  }
});

// --- keys

function choose(row, focused = true) {
  list.querySelectorAll(".on").forEach((other) => other.classList.remove("on"));
  row.classList.add("on");
  // The keys belong to this row now: Enter must not press a button of another one.
  row.tabIndex = -1;
  if (focused) row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (!list || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (help.open) return;
  const rows = [...list.querySelectorAll(".hold:not(.over)")];
  const at = rows.findIndex((row) => row.classList.contains("on"));
  const where = drawer.open ? drawer : rows[at];
  const go = (selector) => { where?.querySelector(selector)?.focus(); event.preventDefault(); };
  switch (event.key) {
    case "j": case "ArrowDown": if (!drawer.open && rows.length) { choose(rows[Math.min(at + 1, rows.length - 1)]); event.preventDefault(); } break;
    case "k": case "ArrowUp": if (!drawer.open && rows.length) { choose(rows[Math.max(at - 1, 0)]); event.preventDefault(); } break;
    case "Enter": if (!drawer.open && at >= 0 && !event.target.closest("a, button, summary, label")) { drawn(rows[at].dataset.id); event.preventDefault(); } break;
    // Not decided by one key: it goes to the button, and Enter presses it.
    case "a": go("button.yes"); break;
    case "r": go("input[name=comment]"); break;
    case "/": document.querySelector("input[type=search]")?.focus(); event.preventDefault(); break;
    case "?": help.showModal(); break;
  }
});
