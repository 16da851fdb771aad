"use strict";
// Shows the newest report in a frame. Where a reader was - scrolled, unfolded, chosen - is carried over to the next.

const POLL_MS = 1000;
const DRAWING_MS = 1000; // charts are drawn after a page has loaded
const LEAST_SHOWN_MS = 5000; // simulated trials end faster than anybody reads
const status_ = document.getElementById("status");
const follow = document.getElementById("follow");
const update = document.getElementById("update");
let shown = null;
let newest = null;
let pending = null;
let shownSince = performance.now();

const frame = () => document.querySelector("iframe:not([hidden])");
const controls = (page) => [...page.querySelectorAll("input, select, textarea")];

function kept(view) {
  const page = view.document;
  return {
    x: view.scrollX,
    y: view.scrollY,
    open: [...page.querySelectorAll("details")].map((each) => each.open),
    values: controls(page).map((each) => [each.value, each.checked]),
    focus: page.activeElement && page.activeElement.id,
  };
}

function choose(control, value, checked) {
  if (control.value === value && control.checked === checked) return;
  control.value = value;
  control.checked = checked;
  for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind, { bubbles: true }));
}

function restore(view, state) {
  const page = view.document;
  const folds = [...page.querySelectorAll("details")];
  if (folds.length === state.open.length) folds.forEach((each, i) => { each.open = state.open[i]; });
  const choices = controls(page);
  if (choices.length === state.values.length) choices.forEach((each, i) => choose(each, ...state.values[i]));
  if (state.focus && page.getElementById(state.focus)) page.getElementById(state.focus).focus({ preventScroll: true });
  view.scrollTo(state.x, state.y);
}

function show(version) {
  if (pending) pending.remove();
  const next = document.createElement("iframe");
  pending = next;
  next.title = frame().title;
  next.hidden = true;
  next.addEventListener("load", () => {
    restore(next.contentWindow, kept(frame().contentWindow));
    setTimeout(() => { if (pending === next) swap(next, version); }, DRAWING_MS);
  });
  next.src = `/report.html?version=${version}`;
  frame().after(next);
}

function swap(next, version) {
  const old = frame();
  const state = kept(old.contentWindow);
  next.hidden = false;
  old.remove();
  next.id = "report";
  restore(next.contentWindow, state);
  document.title = next.contentDocument.title || document.title;
  [shown, pending, shownSince] = [version, null, performance.now()];
  update.hidden = true;
}

async function poll() {
  try {
    const answer = await (await fetch("/version", { cache: "no-store" })).json();
    status_.textContent = answer.status;
    if (shown === null) shown = answer.version;
    const isNew = answer.version !== (pending ? newest : shown);
    newest = answer.version;
    if (isNew && !follow.checked) update.hidden = false;
    else if (isNew && (answer.over || (!pending && performance.now() - shownSince > LEAST_SHOWN_MS))) show(newest);
    document.documentElement.dataset.over = answer.over;
  } catch {
    if (document.documentElement.dataset.over !== "true") {
      status_.textContent = "Nobody answers any more: the study was ended, or its machine cannot be reached. " +
        "Below is the last that was known.";
    }
  }
  setTimeout(poll, POLL_MS);
}

update.addEventListener("click", () => show(newest));
frame().addEventListener("load", () => { document.title = frame().contentDocument.title || document.title; });
poll();
