// Trees of evolved records: a list that is drawn where it is looked at, a search through all texts, and one tree at a time.
// Texts come in parts, each read when one of its trees is first needed. Nothing is ever set as HTML.
const { rules, methods } = JSON.parse(document.getElementById("meta").dataset.json);
const [tools, browser] = ["tools", "browser"].map((name) => document.querySelector("." + name));
const [list, rows, article] = [".list", ".rows", ".tree"].map((name) => browser.querySelector(name));
const [search, method, rule, diff] = ["search", "method", "rule", "diff"].map((id) => document.getElementById(id));
const status = tools.querySelector("[role=status]");
const ROW = 60; // pixels, as in lineage.css
const MAX_MARKS = 2000; // found words that are marked in one text

let index = []; // of each tree: [part, title, [[round, method, rule]...]]
let firstOf = []; // of each part: its first tree
let shown = []; // numbers of the trees in the list
let found = new Map(); // number of a tree: the nodes that hold all words
let current = -1; // place in `shown`
let turn = 0; // of the search; a later one ends an earlier
let searched = ""; // what the list answers
const parts = new Map();

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function many(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

async function unpacked(id) {
  const { type, textContent } = document.getElementById(id);
  if (type === "application/json") return JSON.parse(textContent);
  const binary = atob(textContent);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function part(number) {
  if (!parts.has(number)) parts.set(number, unpacked(`part-${number}`));
  return parts.get(number);
}

async function nodesOf(tree) {
  const number = index[tree][0];
  return (await part(number))[tree - firstOf[number]];
}

// ---- search ----

function wanted() {
  return search.value.toLowerCase().split(/\s+/).filter(Boolean);
}

function passes(steps) {
  const outcome = rule.value;
  const fits = ([, by, dropped]) => (!method.value || by === +method.value)
    && (outcome === "" || outcome === "kept" || (outcome === "any" ? dropped >= 0 : dropped === +outcome));
  return steps.some(fits) && (outcome !== "kept" || steps.every(([, , dropped]) => dropped < 0));
}

function haystack(node) {
  const names = [node.id, methods[node.method], node.method && `method ${node.method}`, rules[node.rule], node.evidence, node.teacher,
    node.task, node.language, ...(node.calls ?? [])];
  return `${node.instruction}\n${node.output}\n${names.filter(Boolean).join("\n")}`.toLowerCase();
}

function holds(text, terms) {
  return terms.every((term) => text.includes(term));
}

async function update() {
  const mine = ++turn, text = search.value, terms = wanted(), hits = new Map();
  const candidates = [...index.keys()].filter((tree) => passes(index[tree][2]));
  let kept = candidates;
  if (terms.length) {
    kept = [];
    let checked = performance.now();
    for (const tree of candidates) {
      const nodes = await nodesOf(tree);
      if (turn !== mine) return;
      const own = [...nodes.keys()].filter((i) => holds(haystack(nodes[i]), terms));
      if (own.length) { kept.push(tree); hits.set(tree, new Set(own)); }
      if (performance.now() - checked > 40) { // let keys and the screen have their turn
        status.textContent = `${kept.length.toLocaleString("en")} found, searching\u2026`;
        await new Promise((done) => setTimeout(done));
        if (turn !== mine) return;
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

function row(place) {
  const [, title, steps] = index[shown[place]];
  const made = element("div", "row");
  made.id = `row-${place}`;
  made.style.top = `${place * ROW}px`;
  made.dataset.place = place;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(place === current));
  made.setAttribute("aria-setsize", shown.length);
  made.setAttribute("aria-posinset", place + 1);
  const name = element("div", "title", title || "(empty)");
  name.dir = "auto";
  const marks = element("div", "steps");
  for (const [round, by, dropped] of steps.slice(0, 12)) {
    const what = round ? `${round}\u202f${methods[by] ?? "evolved"}` : "seed";
    marks.append(element("span", dropped >= 0 ? "step dropped" : "step", dropped >= 0 ? `${what} \u00d7` : what));
  }
  made.append(name, marks);
  return made;
}

async function choose(place, scroll = true) {
  current = place;
  if (scroll && place >= 0) {
    const top = place * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  }
  draw();
  if (place < 0) {
    article.replaceChildren(element("p", "note", "No tree holds this. Fewer words find more."));
    return;
  }
  const tree = shown[place], nodes = await nodesOf(tree);
  if (shown[current] === tree) {
    article.replaceChildren(...nodes.map((node) => nodeView(node, nodes, tree)));
    if (document.activeElement === search) return; // who types looks at the search
    if (article.getBoundingClientRect().top < 0) article.scrollIntoView();
    article.querySelector(".node.found")?.scrollIntoView({ block: "nearest" });
  }
}

// ---- one tree ----

function marked(parent, text, terms) {
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
  const made = element("div", "instruction");
  made.dir = "auto";
  if (!parent || !diff.checked || node.instruction === parent.instruction) return marked(made, node.instruction, terms);
  for (const [kind, text] of difference(parent.instruction, node.instruction)) {
    if (kind === "same") marked(made, text, terms);
    else made.append(marked(element(kind === "added" ? "ins" : "del"), text, terms));
  }
  return made;
}

function nodeView(node, nodes, tree) {
  const terms = wanted(), isDropped = node.rule !== undefined, isFound = found.get(tree)?.has(nodes.indexOf(node));
  const made = element("section", `node${isDropped ? " dropped" : ""}${isFound ? " found" : ""}`);
  for (let depth = 0; depth < Math.min(node.depth, 6); depth++) made.classList.add(`deep-${depth + 1}`);
  const head = element("h3", "", node.round ? `Round ${node.round}` : "Seed");
  const badge = (kind, text) => head.append(element("span", `badge ${kind}`, text));
  if (node.method) badge("method", methods[node.method] ?? `method ${node.method}`);
  for (const name of ["task", "language"]) if (node[name]) badge("", node[name]);
  if (isDropped) badge("fail", rules[node.rule]);
  made.append(head);
  if (isDropped && node.evidence) made.append(marked(element("p", "evidence", "Evidence: "), node.evidence, terms));
  made.append(instructionView(node, nodes[node.parent], terms));
  if (node.output) made.append(outputView(node, terms));
  made.append(facts(node));
  return made;
}

function outputView(node, terms) {
  const made = element("details"), text = node.output;
  const lines = text.split("\n").length;
  made.append(element("summary", "", `Response, ${many(text.length, "character")} in ${many(lines, "line")}`));
  const fill = () => { if (made.childElementCount === 1) { const pre = marked(element("pre"), text, terms); pre.tabIndex = 0; made.append(pre); } };
  made.addEventListener("toggle", fill);
  const lower = text.toLowerCase();
  if (terms.some((term) => lower.includes(term))) { made.open = true; fill(); }
  return made;
}

function facts(node) {
  const made = element("div", "facts");
  const add = (parent, name, value) => { const one = element("span"); one.append(element("b", "", name), ` ${value}`); parent.append(one); };
  add(made, "id", "");
  const link = element("a", "", node.id);
  link.href = `#${encodeURIComponent(node.id)}`;
  made.lastChild.append(link);
  if (node.teacher) add(made, "teacher", node.teacher);
  const [prompt, completion] = node.tokens;
  if (prompt || completion) add(made, "tokens", `${prompt.toLocaleString("en")} in, ${completion.toLocaleString("en")} out`);
  if (node.filters.length || node.calls.length) {
    const more = element("details");
    more.append(element("summary", "", `${many(node.filters.length, "filter")} passed, ${many(node.calls.length, "call")}`));
    if (node.filters.length) add(more, "passed", node.filters.join(", "));
    if (node.calls.length) add(more, "calls", node.calls.join(", "));
    made.append(more);
  }
  return made;
}

// ---- hands ----

function move(step) {
  if (shown.length) choose(Math.max(0, Math.min(shown.length - 1, current + step)));
}

list.addEventListener("scroll", draw, { passive: true });
list.addEventListener("click", (event) => {
  const chosen = event.target.closest(".row");
  if (!chosen) return;
  list.focus({ preventScroll: true });
  choose(+chosen.dataset.place);
  if (getComputedStyle(browser).display === "block") article.scrollIntoView(); // one column: the tree is below
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

function follow() { // the address of a record: the page, # and its id
  let id = location.hash.slice(1);
  try { id = decodeURIComponent(id); } catch { /* as it stands, then */ }
  if (!id || document.getElementById(id)) return update();
  [search.value, method.value, rule.value] = [id, "", ""];
  document.getElementById("trees").scrollIntoView();
  return update();
}
addEventListener("hashchange", follow);

const ready = unpacked("index").then((trees) => {
  index = trees;
  trees.forEach(([number], tree) => { firstOf[number] ??= tree; });
  tools.hidden = browser.hidden = false;
  new ResizeObserver(draw).observe(list);
  return follow();
});
