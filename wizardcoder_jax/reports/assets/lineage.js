// Trees of evolved records: a list that draws only its visible rows, a search through all texts, and one tree at a time.
// Texts are stored in parts; a part is parsed when one of its trees is first needed. No text is ever inserted as HTML.
const { rules, methods } = JSON.parse(document.getElementById("meta").dataset.json);
const [tools, browser] = ["tools", "browser"].map((name) => document.querySelector("." + name));
const [list, rows, article] = [".list", ".rows", ".tree"].map((name) => browser.querySelector(name));
const [search, method, rule, diff] = ["search", "method", "rule", "diff"].map((id) => document.getElementById(id));
const status = tools.querySelector("[role=status]");
const ROW = 60; // pixels, as in lineage.css
const MAX_MARKS = 2000; // highlighted matches in one text

let index = []; // one entry per tree: [part, title, [[round, method, rule]...]]
let firstOf = []; // number of the first tree of each part
let shown = []; // numbers of the trees that the list shows
let found = new Map(); // number of a tree -> positions of the nodes that contain all search terms
let current = -1; // position in `shown` of the selected tree
let latestSearch = 0; // a newer search ends an older one
let searched = ""; // the search text whose results the list shows
const parts = new Map();

function element(name, className, text) {
  const view = document.createElement(name);
  if (className) view.className = className;
  if (text !== undefined) view.textContent = text;
  return view;
}

function plural(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

async function unpack(id) {
  const { type, textContent } = document.getElementById(id);
  if (type === "application/json") return JSON.parse(textContent);
  const binary = atob(textContent);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function part(number) {
  if (!parts.has(number)) parts.set(number, unpack(`part-${number}`));
  return parts.get(number);
}

async function nodesOf(tree) {
  const number = index[tree][0];
  return (await part(number))[tree - firstOf[number]];
}

// ---- search ----

function searchTerms() {
  return search.value.toLowerCase().split(/\s+/).filter(Boolean);
}

function passesFilters(steps) {
  const outcome = rule.value;
  const fits = ([, by, dropped]) => (!method.value || by === +method.value)
    && (outcome === "" || outcome === "kept" || (outcome === "any" ? dropped >= 0 : dropped === +outcome));
  return steps.some(fits) && (outcome !== "kept" || steps.every(([, , dropped]) => dropped < 0));
}

function searchableText(node) {
  const names = [node.id, methods[node.method], node.method && `method ${node.method}`, rules[node.rule], node.evidence, node.teacher,
    node.task, node.language, ...(node.calls ?? [])];
  return `${node.instruction}\n${node.output}\n${names.filter(Boolean).join("\n")}`.toLowerCase();
}

function containsAll(text, terms) {
  return terms.every((term) => text.includes(term));
}

async function update() {
  const mine = ++latestSearch, text = search.value, terms = searchTerms(), hits = new Map();
  const candidates = [...index.keys()].filter((tree) => passesFilters(index[tree][2]));
  let kept = candidates;
  if (terms.length) {
    kept = [];
    let checked = performance.now();
    for (const tree of candidates) {
      const nodes = await nodesOf(tree);
      if (latestSearch !== mine) return;
      const own = [...nodes.keys()].filter((i) => containsAll(searchableText(nodes[i]), terms));
      if (own.length) { kept.push(tree); hits.set(tree, new Set(own)); }
      if (performance.now() - checked > 40) { // keep the page responsive
        status.textContent = `${kept.length.toLocaleString("en")} found, searching\u2026`;
        await new Promise((done) => setTimeout(done));
        if (latestSearch !== mine) return;
        checked = performance.now();
      }
    }
  }
  [shown, found] = [kept, hits];
  const of = shown.length === index.length ? "" : ` of ${index.length.toLocaleString("en")}`;
  status.textContent = `${shown.length.toLocaleString("en")}${of} tree${index.length === 1 ? "" : "s"}`;
  browser.classList.toggle("none", shown.length === 0);
  rows.style.height = `${shown.length * ROW}px`;
  list.scrollTop = 0;
  await choose(shown.length ? 0 : -1, false);
  searched = text;
}

// ---- the list ----

function draw() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
  rows.replaceChildren(...Array.from({ length: last - first }, (_, i) => row(first + i)));
  const option = document.getElementById(`row-${current}`);
  if (option) list.setAttribute("aria-activedescendant", option.id); else list.removeAttribute("aria-activedescendant");
}

function row(position) {
  const [, title, steps] = index[shown[position]];
  const view = element("div", "row");
  view.id = `row-${position}`;
  view.style.top = `${position * ROW}px`;
  view.dataset.position = position;
  view.setAttribute("role", "option");
  view.setAttribute("aria-selected", String(position === current));
  view.setAttribute("aria-setsize", shown.length);
  view.setAttribute("aria-posinset", position + 1);
  const name = element("div", "title", title || "(empty)");
  name.dir = "auto";
  const marks = element("div", "steps");
  for (const [round, by, dropped] of steps.slice(0, 12)) {
    const what = round ? `${round}\u202f${methods[by] ?? "evolved"}` : "seed";
    marks.append(element("span", dropped >= 0 ? "step dropped" : "step", dropped >= 0 ? `${what} \u00d7` : what));
  }
  view.append(name, marks);
  return view;
}

async function choose(position, scroll = true) {
  current = position;
  if (scroll && position >= 0) {
    const top = position * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  }
  draw();
  if (position < 0) {
    article.replaceChildren(element("p", "note", "No tree matches. Try fewer words."));
    return;
  }
  const tree = shown[position], nodes = await nodesOf(tree);
  if (shown[current] === tree) {
    article.replaceChildren(...nodes.map((node) => nodeView(node, nodes, tree)));
    if (document.activeElement === search) return; // do not scroll away from someone who is typing
    if (article.getBoundingClientRect().top < 0) article.scrollIntoView();
    article.querySelector(".node.found")?.scrollIntoView({ block: "nearest" });
  }
}

// ---- one tree ----

function appendHighlighted(parent, text, terms) {
  const pattern = terms.length ? new RegExp(terms.map((t) => t.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "giu") : null;
  let at = 0, count = 0;
  for (const match of pattern ? text.matchAll(pattern) : []) {
    if (++count > MAX_MARKS) break;
    parent.append(text.slice(at, match.index), element("mark", "", match[0]));
    at = match.index + match[0].length;
  }
  parent.append(text.slice(at));
  return parent;
}

function instructionView(node, parent, terms) {
  const view = element("div", "instruction");
  view.dir = "auto";
  if (!parent || !diff.checked || node.instruction === parent.instruction) return appendHighlighted(view, node.instruction, terms);
  for (const [kind, text] of difference(parent.instruction, node.instruction)) {
    if (kind === "same") appendHighlighted(view, text, terms);
    else view.append(appendHighlighted(element(kind === "added" ? "ins" : "del"), text, terms));
  }
  return view;
}

function nodeView(node, nodes, tree) {
  const terms = searchTerms(), isDropped = node.rule !== undefined, isFound = found.get(tree)?.has(nodes.indexOf(node));
  const view = element("section", `node${isDropped ? " dropped" : ""}${isFound ? " found" : ""}`);
  for (let depth = 0; depth < Math.min(node.depth, 6); depth++) view.classList.add(`deep-${depth + 1}`);
  const head = element("h3", "", node.round ? `Round ${node.round}` : "Seed");
  const badge = (kind, text) => head.append(element("span", `badge ${kind}`, text));
  if (node.method) badge("method", methods[node.method] ?? `method ${node.method}`);
  for (const name of ["task", "language"]) if (node[name]) badge("", node[name]);
  if (isDropped) badge("fail", rules[node.rule]);
  view.append(head);
  if (isDropped && node.evidence) view.append(appendHighlighted(element("p", "evidence", "Evidence: "), node.evidence, terms));
  view.append(instructionView(node, nodes[node.parent], terms));
  if (node.output) view.append(outputView(node, terms));
  view.append(facts(node));
  return view;
}

function outputView(node, terms) {
  const view = element("details"), text = node.output;
  const lines = text.split("\n").length;
  view.append(element("summary", "", `Response, ${plural(text.length, "character")} in ${plural(lines, "line")}`));
  const fill = () => { if (view.childElementCount === 1) { const pre = appendHighlighted(element("pre"), text, terms); pre.tabIndex = 0; view.append(pre); } };
  view.addEventListener("toggle", fill);
  const lower = text.toLowerCase();
  if (terms.some((term) => lower.includes(term))) { view.open = true; fill(); }
  return view;
}

function facts(node) {
  const view = element("div", "facts");
  const add = (parent, name, value) => { const one = element("span"); one.append(element("b", "", name), ` ${value}`); parent.append(one); };
  add(view, "id", "");
  const link = element("a", "", node.id);
  link.href = `#${encodeURIComponent(node.id)}`;
  view.lastChild.append(link);
  if (node.teacher) add(view, "teacher", node.teacher);
  const [prompt, completion] = node.tokens;
  if (prompt || completion) add(view, "tokens", `${prompt.toLocaleString("en")} in, ${completion.toLocaleString("en")} out`);
  if (node.filters.length || node.calls.length) {
    const more = element("details");
    more.append(element("summary", "", `${plural(node.filters.length, "filter")} passed, ${plural(node.calls.length, "call")}`));
    if (node.filters.length) add(more, "passed", node.filters.join(", "));
    if (node.calls.length) add(more, "calls", node.calls.join(", "));
    view.append(more);
  }
  return view;
}

// ---- mouse and keyboard ----

function move(step) {
  if (shown.length) choose(Math.max(0, Math.min(shown.length - 1, current + step)));
}

list.addEventListener("scroll", draw, { passive: true });
list.addEventListener("click", (event) => {
  const chosen = event.target.closest(".row");
  if (!chosen) return;
  list.focus({ preventScroll: true });
  choose(+chosen.dataset.position);
  if (getComputedStyle(browser).display === "block") article.scrollIntoView(); // in one column, the tree is below the list
});
list.addEventListener("keydown", (event) => {
  const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
  if (event.key === "Enter") { event.preventDefault(); article.focus(); }
  else if (step) { event.preventDefault(); move(step); }
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === search) {
    if (event.key === "Enter") { event.preventDefault(); list.focus(); choose(current); }
    if (event.key === "Escape" && search.value) { search.value = ""; update(); }
    return;
  }
  if (event.target.matches("select")) return;
  if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); }
  if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
  if (event.key === "d") { diff.checked = !diff.checked; choose(current); }
});
let waiting;
search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 120); });
for (const select of [method, rule]) select.addEventListener("change", update);
diff.addEventListener("change", () => choose(current));
for (const button of document.querySelectorAll(".rule")) {
  button.addEventListener("click", () => {
    rule.value = button.dataset.rule;
    update();
    document.getElementById("trees").scrollIntoView();
    list.focus({ preventScroll: true });
  });
}

function follow() { // the address of a record is that of the page, followed by # and the record's id
  let id = location.hash.slice(1);
  try { id = decodeURIComponent(id); } catch { /* not URL-encoded: use it as it is */ }
  if (!id || document.getElementById(id)) return update();
  [search.value, method.value, rule.value] = [id, "", ""];
  document.getElementById("trees").scrollIntoView();
  return update();
}
addEventListener("hashchange", follow);

const ready = unpack("index").then((trees) => {
  index = trees;
  trees.forEach(([number], tree) => { firstOf[number] ??= tree; });
  tools.hidden = browser.hidden = false;
  new ResizeObserver(draw).observe(list);
  return follow();
});
