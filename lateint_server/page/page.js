"use strict";
// Whatever comes from an index becomes text nodes or numbers, never markup.

const HUES = [255, 145, 55, 320, 195, 95, 25, 285];
const RESERVED = "lateint"; // of metadata: where tokens are, see docs/serving.md
const $ = (id) => document.getElementById(id);
let indexes = [];
let drawn = []; // for each hit shown, a function of the query token that is looked at, or null
let kept = null;
let most = { added: 0, alike: [] }; // the largest of all hits, so that colours mean the same in each

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
    ? "Words, or token embeddings as JSON."
    : "Token embeddings as JSON; this server has no encoder that would make them of words.";
  $("alpha-field").hidden = !(one.encoder && one.text_search);
}

// ---------------------------------------------------------------- a search

function request() {
  const words = $("query").value.trim();
  const one = chosen();
  const message = { k: Number($("k").value), fields: ["*"], explain: true };
  let embedding = null;
  if (/^[[{]/.test(words)) {
    try { embedding = JSON.parse(words); } catch { /* words, then */ }
  }
  if (embedding) {
    message.query = embedding;
  } else if (one.encoder) {
    message.query = words;
    if (one.text_search) Object.assign(message, { text: words, alpha: Number($("alpha").value) });
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
  try {
    const answer = await ask(`/${encodeURIComponent(chosen().name)}/search`, request());
    const count = answer.hits.length;
    say(`${count === 1 ? "1 hit" : `${count} hits`} in ${Math.round(performance.now() - began)} ms`);
    display(answer);
  } catch (error) {
    say(error.message, true);
    display({ hits: [] });
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

function display(answer) {
  drawn = [];
  kept = null;
  most = { added: 1e-9, alike: [] };
  $("hits").replaceChildren(...answer.hits.map((hit, number) => shownHit(hit, number + 1)));
  const shown = answer.hits.find((hit) => hit.similarity);
  const count = shown && drawn.length ? shown.similarity.shape[0] : 0;
  const names = answer.query_tokens || Array.from({ length: count }, (_, number) => String(number + 1));
  $("chips").replaceChildren(...Array.from({ length: count }, (_, number) => chip(number, names[number])));
  $("tokens").hidden = count === 0;
  look(null);
}

function hue(token) {
  return String(HUES[token % HUES.length]);
}

function chip(number, name) {
  const button = make("button", { type: "button", className: "chip", textContent: name });
  button.style.setProperty("--hue", hue(number));
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("pointerenter", () => look(number));
  button.addEventListener("focus", () => look(number));
  button.addEventListener("pointerleave", () => look(kept));
  button.addEventListener("blur", () => look(kept));
  button.addEventListener("click", () => {
    kept = kept === number ? null : number;
    [...$("chips").children].forEach((one, at) => one.setAttribute("aria-pressed", String(at === kept)));
    look(kept);
  });
  return button;
}

function look(token) {
  [...$("chips").children].forEach((one, at) => one.classList.toggle("lit", at === token));
  drawn.forEach((draw) => draw(token));
}

function shownHit(hit, rank) {
  const places = (hit.metadata || {})[RESERVED] || {};
  const similarity = hit.similarity && hit.similarity.shape[1] > 0 ? matrix(hit.similarity) : null;
  const item = make("li", { className: "hit" }, make("h2", {},
    make("span", { className: "rank", textContent: String(rank) }),
    make("span", { textContent: titleOf(hit) }),
    make("span", { className: "score", textContent: hit.score.toFixed(3) })));
  if (typeof places.image === "string" && Array.isArray(places.grid)) item.append(picture(places, similarity));
  if (typeof hit.text === "string") item.append(passage(hit.text, hit.spans, similarity));
  item.append(about(hit));
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

function passage(text, spans, similarity) {
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
  colour(elements, similarity);
  return paragraph;
}

function picture(places, similarity) {
  const [rows, columns] = places.grid;
  const path = places.image.split("/").map(encodeURIComponent).join("/");
  const frame = make("figure", {}, make("img", { src: `images/${path}`, alt: places.image, loading: "lazy" }));
  const whole = [rows, columns].every((size) => Number.isInteger(size) && size > 0 && size <= 256);
  if (similarity && whole && rows * columns <= similarity[0].length) {
    const patches = Array.from({ length: rows * columns }, () => make("div", { className: "patch" }));
    const grid = make("div", { className: "patches" }, ...patches);
    grid.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
    frame.append(grid);
    colour(patches, similarity);
  }
  return frame;
}

// Colours elements, one a document token (null: it has no place): by what all query tokens match best, or by how
// alike one of them is.
function colour(elements, similarity) {
  const best = similarity.map((row) => row.reduce((most, value, at) => (value > row[most] ? at : most), 0));
  const added = new Float32Array(similarity[0].length);
  const strongest = new Array(added.length).fill(null);
  best.forEach((at, token) => {
    added[at] += similarity[token][at];
    if (strongest[at] === null || similarity[token][at] > similarity[strongest[at]][at]) strongest[at] = token;
  });
  most.added = added.reduce((a, b) => Math.max(a, b), most.added);
  best.forEach((at, token) => { most.alike[token] = Math.max(most.alike[token] || 1e-9, similarity[token][at]); });
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
      [...$("chips").children].forEach((one, token) => one.classList.toggle("lit", best[token] === at));
    });
    element.addEventListener("pointerleave", () => look(kept));
  });
}

$("form").addEventListener("submit", search);
$("index").addEventListener("change", show);
$("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("form").requestSubmit(); }
});
begin();
