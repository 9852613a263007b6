"use strict";
// Whatever comes from an index becomes text nodes or numbers, never markup.

const HUES = [255, 145, 55, 320, 195, 95, 25, 285];
const OF_PICTURES = 25; // the hue of what the picture of a query matches
const RESERVED = "lateint"; // of metadata: where tokens are, see docs/serving.md
const $ = (id) => document.getElementById(id);
let indexes = [];
let drawn = []; // for each hit shown, a function of the query token that is looked at, or null
let kept = null;
let picture = null; // of the query that is being written, as a data url
let query = { hues: [], places: null, source: null }; // of the hits shown: a hue a token, and its picture
let parts = []; // of that query: for each token the element that stands for it, or null
const nothing = () => ({ added: 1e-9, alike: [], least: Infinity, patch: -Infinity });
let most = nothing(); // the largest of all hits, so that colours mean the same in each

function make(tag, about = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) element[name] = value;
  element.append(...children);
  return element;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function ask(path, message) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  if (message) headers["content-type"] = "application/json";
  const answer = await fetch(`v1/indexes${path}`, {
    method: message ? "POST" : "GET", headers, body: message && JSON.stringify(message),
  });
  const content = await answer.json().catch(() => ({ detail: answer.statusText }));
  if (answer.status === 401) $("key-field").hidden = false;
  if (!answer.ok) throw new Error(content.detail);
  return content;
}

// ---------------------------------------------------------------- which index

async function begin() {
  try {
    indexes = (await ask("")).indexes;
  } catch (error) {
    say(error.message, true);
    return;
  }
  $("index").replaceChildren(...indexes.map((one) => make("option", { value: one.name, textContent: one.name })));
  const wanted = new URLSearchParams(location.search).get("index");
  if (indexes.some((one) => one.name === wanted)) $("index").value = wanted;
  $("choose").hidden = indexes.length < 2;
  say("");
  show();
}

function chosen() {
  return indexes.find((one) => one.name === $("index").value);
}

function show() {
  const one = chosen();
  if (!one) return;
  $("about").textContent = `${indexes.length < 2 ? `${one.name}: ` : ""}${one.documents.toLocaleString("en")} documents`;
  $("query").placeholder = one.encoder || one.text_search ? "What are you looking for?" : "[[0.12, -0.03, …], …]";
  $("query-help").textContent = one.encoder || one.text_search
    ? `Words${one.query_pictures ? ", a picture, or both" : ", or token embeddings as JSON"}.`
    : "Token embeddings as JSON; this server has no encoder that would make them of words.";
  $("alpha-field").hidden = !(one.encoder && one.text_search);
  $("picture-field").hidden = !one.query_pictures;
  if (!one.query_pictures) setPicture(null);
}

// ---------------------------------------------------------------- the picture of a query

function setPicture(url) {
  picture = url;
  $("preview").hidden = $("remove").hidden = url === null;
  $("picture-label").firstElementChild.hidden = url !== null;
  $("query").required = url === null;
  if (url === null) $("picture").value = "";
  else $("preview").src = url;
}

function take(file) {
  if (!file || $("picture-field").hidden) return;
  if (!["image/jpeg", "image/png", "image/webp"].includes(file.type)) {
    say("The picture must be a JPEG, PNG or WebP file.", true);
    return;
  }
  const reader = new FileReader();
  reader.addEventListener("load", () => setPicture(reader.result));
  reader.readAsDataURL(file);
}

// ---------------------------------------------------------------- a search

function request() {
  const words = $("query").value.trim();
  const one = chosen();
  const message = { k: Number($("k").value), fields: ["*"], explain: true };
  let embedding = null;
  if (!picture && /^[[{]/.test(words)) {
    try { embedding = JSON.parse(words); } catch { /* words, then */ }
  }
  if (embedding) {
    message.query = embedding;
  } else if (one.encoder) {
    message.query = picture ? { text: words, picture: picture.slice(picture.indexOf(",") + 1) } : words;
    if (one.text_search && words) Object.assign(message, { text: words, alpha: Number($("alpha").value) });
  } else if (one.text_search) {
    Object.assign(message, { text: words, explain: false });
  } else {
    throw new Error("The query must be token embeddings as JSON, a list of lists of numbers.");
  }
  const filter = $("filter").value.trim();
  if (filter) message.filter = filter.startsWith("{") ? JSON.parse(filter) : filter;
  return message;
}

async function search(event) {
  event.preventDefault();
  if ($("key").value) sessionStorage.setItem("key", $("key").value);
  if (!indexes.length) await begin();
  if (!chosen()) return;
  $("search").disabled = true;
  say("Searching …");
  const began = performance.now();
  const source = picture;
  try {
    const answer = await ask(`/${encodeURIComponent(chosen().name)}/search`, request());
    const count = answer.hits.length;
    say(`${count === 1 ? "1 hit" : `${count} hits`} in ${Math.round(performance.now() - began)} ms`);
    display(answer, source);
  } catch (error) {
    say(error.message, true);
    display({ hits: [] }, null);
  } finally {
    $("search").disabled = false;
  }
}

function matrix(message) {
  const bytes = Uint8Array.from(atob(message.base64), (character) => character.charCodeAt(0));
  const [rows, columns] = message.shape;
  const values = new Float32Array(bytes.buffer);
  return Array.from({ length: rows }, (_, row) => values.subarray(row * columns, (row + 1) * columns));
}

// ---------------------------------------------------------------- what is shown

function display(answer, source) {
  drawn = [];
  kept = null;
  most = nothing();
  const shown = answer.hits.find((hit) => hit.similarity);
  const names = namesOf(answer, shown ? shown.similarity.shape[0] : 0);
  const places = source && answer.query_picture ? answer.query_picture : null;
  query = { hues: huesOf(names, places), places, source };
  $("hits").replaceChildren(...answer.hits.map((hit, number) => shownHit(hit, number + 1)));
  parts = names.map((name, token) => (drawn.length && name ? chip(token, name) : null));
  $("chips").replaceChildren(...parts.filter(Boolean));
  if (places) showPatches(places, source);
  $("patches").hidden = !places;
  $("tokens").hidden = !parts.some(Boolean);
  $("tokens-help").textContent = places
    ? "Point at a word or at a patch of the picture to see what it matches in each hit; click to keep it."
    : "Point at a query token to see what it matches in each hit; click to keep it.";
  look(null);
}

// The name of each query token; "" for one that stands for no word.
function namesOf(answer, count) {
  if (answer.query_tokens) return answer.query_tokens;
  return Array.from({ length: count }, (_, number) => String(number + 1));
}

function huesOf(names, places) {
  const hues = places ? HUES.filter((hue) => hue !== OF_PICTURES) : HUES;
  let words = 0;
  return names.map((name) => (name || !places ? hues[words++ % hues.length] : OF_PICTURES));
}

function hue(token) {
  return String(query.hues[token]);
}

function chip(token, name) {
  const button = make("button", { type: "button", className: "chip", textContent: name });
  button.style.setProperty("--hue", hue(token));
  return standing(button, token);
}

// A button that stands for a query token.
function standing(button, token) {
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("pointerenter", () => look(token));
  button.addEventListener("focus", () => look(token));
  button.addEventListener("pointerleave", () => look(kept));
  button.addEventListener("blur", () => look(kept));
  button.addEventListener("click", () => {
    kept = kept === token ? null : token;
    parts.forEach((one, at) => one && one.setAttribute("aria-pressed", String(at === kept)));
    look(kept);
  });
  return button;
}

// The picture that was asked with, whose patches are query tokens; arrow keys move between them.
function showPatches(places, source) {
  const [rows, columns] = places.grid;
  const buttons = Array.from({ length: rows * columns }, (_, at) => {
    const place = `row ${Math.floor(at / columns) + 1}, column ${(at % columns) + 1}`;
    const button = make("button", { type: "button", className: "patch", tabIndex: at ? -1 : 0, title: place });
    button.setAttribute("aria-label", `patch in ${place}`);
    button.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
      if (!step || !buttons[at + step]) return;
      event.preventDefault();
      buttons[at + step].focus();
    });
    return standing(button, places.first + at);
  });
  buttons.forEach((button, at) => { parts[places.first + at] = button; });
  $("patches").replaceChildren(...patched(source, "the picture of the query", places.grid, places.box, buttons));
}

// A picture, and over it the cells of a grid, in a box whose edges are shares of the picture.
function patched(source, alt, [rows, columns], [left, top, right, bottom], cells) {
  const grid = make("div", { className: "patches" }, ...cells);
  grid.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
  grid.style.inset = [top, 1 - right, 1 - bottom, left].map((share) => `${100 * share}%`).join(" ");
  return [make("img", { src: source, alt, loading: "lazy" }), make("div", { className: "window" }, grid)];
}

function look(token) {
  parts.forEach((one, at) => one && one.classList.toggle("lit", at === token));
  drawn.forEach((draw) => draw(token));
}

function shownHit(hit, rank) {
  const places = (hit.metadata || {})[RESERVED] || {};
  const similarity = hit.similarity && hit.similarity.shape[1] > 0 ? matrix(hit.similarity) : null;
  const item = make("li", { className: "hit" }, make("h2", {},
    make("span", { className: "rank", textContent: String(rank) }),
    make("span", { textContent: titleOf(hit) }),
    make("span", { className: "score", textContent: hit.score.toFixed(3) })));
  const why = make("div", { className: "why" });
  const show = query.places && similarity ? addedByPatches(why, similarity) : () => {};
  const what = make("div");
  if (typeof places.image === "string" && Array.isArray(places.grid)) what.append(...pictured(places, similarity, show));
  if (typeof hit.text === "string") what.append(passage(hit.text, hit.spans, similarity, show));
  what.append(about(hit));
  why.append(what);
  item.append(why);
  return item;
}

function titleOf(hit) {
  const title = (hit.metadata || {}).title;
  return typeof title === "string" && title ? title : String(hit.id);
}

function about(hit) {
  const list = make("dl", { className: "about" });
  const pairs = Object.entries(hit.metadata || {}).filter(([name]) => name !== RESERVED && name !== "title");
  if (titleOf(hit) !== String(hit.id)) pairs.unshift(["id", hit.id]);
  for (const [name, value] of pairs) {
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    list.append(make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: text })));
  }
  return list;
}

function passage(text, spans, similarity, show) {
  const paragraph = make("p", { className: "text" });
  const known = Array.isArray(spans) && similarity && spans.length === similarity[0].length;
  if (!known) {
    paragraph.append(text);
    return paragraph;
  }
  const characters = Array.from(text); // as Python counts them
  const elements = new Array(spans.length).fill(null);
  const order = spans.map((_, token) => token).sort((a, b) => spans[a][0] - spans[b][0]);
  let at = 0;
  for (const token of order) {
    const [first, last] = spans[token];
    if (!(first >= at && last > first && last <= characters.length)) continue;
    if (first > at) paragraph.append(characters.slice(at, first).join(""));
    elements[token] = make("span", { className: "token", textContent: characters.slice(first, last).join("") });
    paragraph.append(elements[token]);
    at = last;
  }
  paragraph.append(characters.slice(at).join(""));
  colour(elements, similarity, show);
  return paragraph;
}

function pictured(places, similarity, show) {
  const [rows, columns] = places.grid;
  const path = `images/${places.image.split("/").map(encodeURIComponent).join("/")}`;
  const whole = [rows, columns].every((size) => Number.isInteger(size) && size > 0 && size <= 256);
  const cells = similarity && whole && rows * columns <= similarity[0].length ? rows * columns : 0;
  const patches = Array.from({ length: cells }, () => make("div", { className: "patch" }));
  const grid = cells ? places.grid : [1, 1];
  const figure = make("figure", {}, ...patched(path, places.image, grid, [0, 0, 1, 1], patches));
  if (!cells) return [figure];
  const added = colour(patches, similarity, show);
  const inPatches = added.slice(0, cells).reduce((a, b) => a + b, 0) / added.reduce((a, b) => a + b, 1e-9);
  const share = `${Math.round(100 * Math.min(1, Math.max(0, inPatches)))} % of the score is of patches, the rest of tokens without a place`;
  return [figure, make("p", { className: "quiet share", textContent: cells < added.length ? share : "" })];
}

// The picture of the query in the colours of what its patches add to the score of a hit: each what it is to the token
// that it matches best. Gives a function that shows instead how alike they are to one token of the hit.
function addedByPatches(why, similarity) {
  const { grid, first, box } = query.places;
  const own = similarity.slice(first, first + grid[0] * grid[1]);
  const added = own.map((row) => row.reduce((a, b) => Math.max(a, b)));
  const cells = added.map((value) => make("div", { className: "patch", title: `adds ${value.toFixed(3)}` }));
  most.least = added.reduce((a, b) => Math.min(a, b), most.least);
  most.patch = added.reduce((a, b) => Math.max(a, b), most.patch);
  const paint = (cell, heat) => {
    cell.style.setProperty("--heat", String(Math.max(0, heat) * 0.7));
    cell.style.setProperty("--hue", String(OF_PICTURES));
  };
  drawn.push((token) => cells.forEach((cell, at) => {
    paint(cell, (added[at] - most.least) / Math.max(1e-9, most.patch - most.least));
    cell.classList.toggle("lit", first + at === token);
  }));
  cells.forEach((cell, at) => {
    cell.addEventListener("pointerenter", () => look(first + at));
    cell.addEventListener("pointerleave", () => look(kept));
  });
  why.append(make("figure", { className: "added" }, ...patched(query.source, "the picture of the query", grid, box, cells)));
  return (token) => {
    const largest = own.reduce((a, row) => Math.max(a, row[token]), 1e-9);
    cells.forEach((cell, at) => paint(cell, (own[at][token] / largest) ** 3));
  };
}

// Colours elements, one a document token (null: it has no place): by what all query tokens match best, or by how
// alike one of them is. ``show`` is told of the document token that is pointed at. Gives what each token adds.
function colour(elements, similarity, show) {
  const best = similarity.map((row) => row.reduce((most, value, at) => (value > row[most] ? at : most), 0));
  const added = new Float32Array(similarity[0].length);
  const strongest = new Array(added.length).fill(null);
  best.forEach((at, token) => {
    added[at] += similarity[token][at];
    if (strongest[at] === null || similarity[token][at] > similarity[strongest[at]][at]) strongest[at] = token;
  });
  most.added = added.reduce((a, b) => Math.max(a, b), most.added);
  similarity.forEach((row, token) => row.forEach((value, at) => { // of what can be seen
    if (elements[at]) most.alike[token] = Math.max(most.alike[token] || 1e-9, value);
  }));
  const paint = (at, heat, token, marked) => {
    if (!elements[at]) return;
    elements[at].style.setProperty("--heat", String(Math.max(0, heat) * 0.7));
    elements[at].style.setProperty("--hue", hue(token));
    elements[at].classList.toggle("best", marked);
  };
  drawn.push((token) => {
    if (token === null || token >= similarity.length) {
      added.forEach((value, at) => paint(at, value / most.added, strongest[at] === null ? 0 : strongest[at], false));
    } else {
      const shares = similarity[token].map((value) => value / most.alike[token]);
      shares.forEach((share, at) => paint(at, share ** 3, token, at === best[token] && share > 0.5));
    }
  });
  elements.forEach((element, at) => {
    if (!element) return;
    element.title = strongest[at] === null ? "no query token matches this best" : `adds ${added[at].toFixed(3)}`;
    element.addEventListener("pointerenter", () => {
      parts.forEach((one, token) => one && one.classList.toggle("lit", best[token] === at));
      show(at);
    });
    element.addEventListener("pointerleave", () => look(kept));
  });
  return added;
}

$("form").addEventListener("submit", search);
$("index").addEventListener("change", show);
$("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("form").requestSubmit(); }
});
$("picture").addEventListener("change", () => take($("picture").files[0]));
$("remove").addEventListener("click", () => setPicture(null));
$("query").addEventListener("paste", (event) => take(event.clipboardData.files[0]));
$("asked").addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  $("asked").classList.add("over");
});
$("asked").addEventListener("dragleave", () => $("asked").classList.remove("over"));
$("asked").addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  $("asked").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
begin();
