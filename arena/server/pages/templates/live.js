"use strict";
// Keeps the page as the server sees it: fetches the fragment that #live-state names and changes what differs.
(() => {
  const POLL_MS = 1000, MOST_WAIT_MS = 15000;
  const state = document.getElementById("live-state");
  const pause = document.getElementById("pause");
  let paused = false, wait_ms = POLL_MS, timer;

  // Makes `now` look like `next` without replacing what is the same, so that focus and selection stay.
  function morph(now, next) {
    if (now.isEqualNode(next)) return;
    if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName) { now.replaceWith(next.cloneNode(true)); return; }
    if (now.nodeType !== Node.ELEMENT_NODE) { now.nodeValue = next.nodeValue; return; }
    for (const { name } of [...now.attributes]) if (!next.hasAttribute(name)) now.removeAttribute(name);
    for (const { name, value } of next.attributes) now.setAttribute(name, value);
    morphChildren(now, next);
  }

  function morphChildren(now, next) {
    const wantedIds = new Set([...next.children].map((child) => child.id));
    const named = [...now.children].filter((child) => child.id);
    for (const child of named) if (!wantedIds.has(child.id)) child.remove();
    const known = new Map(named.map((child) => [child.id, child]));
    let at = now.firstChild;
    for (const wanted of next.childNodes) {
      const same = wanted.id ? known.get(wanted.id) : at && !at.id ? at : null;
      if (!same) { now.insertBefore(wanted.cloneNode(true), at); continue; }
      if (same !== at) now.insertBefore(same, at);
      at = same.nextSibling;
      morph(same, wanted);
    }
    while (at) { const rest = at; at = at.nextSibling; rest.remove(); }
  }

  function append(list, more) {
    for (const item of more.children) if (!document.getElementById(item.id)) list.append(item.cloneNode(true));
  }

  function apply(html) {
    for (const part of new DOMParser().parseFromString(html, "text/html").body.children) {
      const shown = document.getElementById(part.id);
      if (shown) ("append" in part.dataset ? append : morph)(shown, part);
    }
  }

  async function update() {
    const response = await fetch(state.dataset.poll, { cache: "no-store", redirect: "error" });
    if (!response.ok) throw new Error(String(response.status));
    apply(await response.text());
  }

  async function poll() {
    if (!paused && !document.hidden) {
      try { await update(); wait_ms = POLL_MS; } catch {
        state.textContent = "No answer from the server; trying again.";
        wait_ms = Math.min(2 * wait_ms, MOST_WAIT_MS);
      }
    }
    next();
  }

  function next() {
    clearTimeout(timer);
    if (state.dataset.poll) timer = setTimeout(poll, wait_ms);
    else if (pause) pause.hidden = true;
  }

  function openStep() {
    const index = /^#step-(\d{1,9})$/.exec(location.hash)?.[1];
    const total = document.getElementById("step-pages")?.dataset.total;
    if (index && !document.getElementById("step-" + index) && Number(index) < Number(total)) {
      location.replace(location.pathname + "?step=" + index + location.hash);
    }
  }

  if (pause && state.dataset.poll) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      state.textContent = paused ? "Updates are paused." : "Updates every second.";
    });
  }
  window.addEventListener("hashchange", openStep);
  openStep();
  next();
})();
